import json


def test_runs_and_logs_are_exchanged_and_compared(run, tmp_path):
    published, table, log = tmp_path / "noise_0.25.tsv", tmp_path / "a:b.parquet", tmp_path / "again.tsv"
    published.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.978\t1\t15.4\n1\t3\t-1\t0.0\t0\t15.4\n"
    )
    told = ("--sigma", 0.25, "--n", 100_000, "--alpha", 0.001, "--output", table)
    code, out, err = run("import", published, *told)
    assert (code, out) == (0, f"2 inputs: {table}\n")
    assert "warning:" in err
    assert "it is the largest at α = 0.01" in err
    assert run("import", published, *told)[0] == 2
    assert run("import", published, *told, "--overwrite")[0] == 0

    code, out, _ = run("export", table, "--method", "global-0.25", "--output", log)
    assert (code, out) == (0, f"log: {log}\n")
    assert "0\t3\t3\t0.978\t1\t0:00:15.400000" in log.read_text()

    code, out, _ = run("compare", f"{table}:global-0.25", table, "--radii", "0.5,1", "--json")
    comparison = json.loads(out)
    assert (code, comparison["common"], [at["a"] for at in comparison["at"]]) == (0, 2, [0.5, 0.0])
    code, out, _ = run("compare", table, table)
    assert code == 0
    assert "2 common inputs" in out
    folder = tmp_path / "run"
    folder.mkdir()
    table.rename(folder / "certificates.parquet")
    code, out, _ = run("compare", folder, f"{folder}:global-0.25", "--json")
    assert (code, json.loads(out)["common"]) == (0, 2)
    code, _, err = run("compare", folder, f"{folder}:dual")
    assert code == 2
    assert "has no method 'dual'" in err
