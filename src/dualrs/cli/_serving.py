"""The commands of the service: serve, token, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualrs.cli._shared import WRONG, AsJson, Device, data_of, open_data, out
from dualrs.progress import console as remarks

if TYPE_CHECKING:
    from dualrs.data import Dataset


def serve(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped model.")],
    host: Annotated[str, typer.Option(help="The address to listen on; any but this machine's own needs tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    tokens: Annotated[
        Path | None, typer.Option(help="A file of lines NAME HASH, as dualrs token prints them: who may ask.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help="Another name under which this machine may be asked.")] = None,
    records: Annotated[Path | None, typer.Option(help="Append every answer's audit record to this file.")] = None,
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="With the input in every record.")] = False,
    allow_seed: Annotated[
        bool,
        typer.Option("--allow-seed", help="Let clients give the seed of the noise. α then holds if they are honest."),
    ] = False,
    attack: Annotated[bool, typer.Option(help="Let clients try to break an answer, which takes seconds each.")] = True,
    max_n: Annotated[int, typer.Option(help="The most samples of each model that a request may ask for.")] = 100_000,
    max_inputs: Annotated[int, typer.Option(help="The most inputs of a batch.")] = 64,
    max_seconds: Annotated[float, typer.Option(help="The most for an answer.")] = 120.0,
    max_body: Annotated[int, typer.Option(help="The most bytes of a request.")] = 16 * 2**20,
    active: Annotated[int, typer.Option(help="Inputs that are certified at a time.")] = 32,
    waiting: Annotated[int, typer.Option(help="Inputs that wait beyond these, before clients are sent away.")] = 64,
    grace: Annotated[float, typer.Option(help="Seconds for what is under way when the service is told to end.")] = 10.0,
    samples: Annotated[
        str | None, typer.Option(help="Data whose test images the page offers; a shipped model's own if absent.")
    ] = None,
    tls: Annotated[tuple[Path, Path] | None, typer.Option(help="Files of a TLS certificate and of its key.")] = None,
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="Noisy inputs per batch.")] = 256,
    arithmetic: Annotated[
        str, typer.Option(help="float; or exact, for which 8-bit images are certified as computed.")
    ] = "float",
    generator: Annotated[str, typer.Option(help="Of the noise: sfc64, or shake256, a cryptographic one.")] = "sfc64",
) -> None:
    """Serve a model: predictions and certificates over HTTP, and a page that shows a proof growing.

    Listens on this machine's own address unless tokens say who may ask. Ends, after answering what is under way, on
    Ctrl-C or SIGTERM. The log goes to standard error, one JSON object a line.

    Example: dualrs serve fashion-mnist
    """
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.serving import Limits, RecordFile, Service, Tokens, log_to_stderr
    from dualrs.serving import serve as run
    from dualrs.smoothing import load

    limits = Limits(
        n=max_n,
        inputs=max_inputs,
        seconds=max_seconds,
        body=max_body,
        active=active,
        waiting=waiting,
        grace=grace,
    )
    known = None if tokens is None else Tokens.read(tokens)
    folder = find_bundle(bundle)
    execution: Any = {"batch_size": batch_size, "arithmetic": arithmetic, "generator": generator}
    model = load(folder, device=device, **execution)
    service = Service(
        model,
        Path(bundle).name,
        bundle_digest(folder),
        limits=limits,
        allow_seed=allow_seed,
        keep_inputs=keep_inputs,
        records=None if records is None else RecordFile(records),
        execution=execution,
        offered=_samples(bundle, samples, model),
        attack_offered=attack,
    )
    log_to_stderr()
    run(service, host=host, port=port, tokens=known, names=name or (), certificate=tls)


def token(
    holder: Annotated[str, typer.Argument(help="Whose token it is: a name without spaces.")],
) -> None:
    """Make a bearer token: the secret, shown once, and the line for the file of dualrs serve --tokens.

    Example: dualrs token alice
    """
    from dualrs.serving import hash_of, new_token

    if not holder or holder.split() != [holder] or "#" in holder:
        raise ValueError(f"a holder's name has no spaces and no #; got {holder!r}")
    secret = new_token()
    remarks.print(f"The token of {holder}, shown this once: ", end="", highlight=False, markup=False)
    remarks.print(secret, style="bold", highlight=False, soft_wrap=True)
    remarks.print("The line for the file of tokens:", highlight=False)
    print(f"{holder} {hash_of(secret)}")


def verify(
    record: Annotated[Path, typer.Argument(help="An audit record, or an answer that has one, as JSON.")],
    bundle: Annotated[str, typer.Option("--model", help="The model's bundle, or the name of a shipped one.")] = "",
    image: Annotated[Path | None, typer.Option("--input", help="The input, if the record does not hold it.")] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Certify an input again as an audit record says, and tell whether the same certificate comes out.

    The exit code is 3 if it does not.

    Example: dualrs verify answer.json --model fashion-mnist --input shirt.png
    """
    from dualrs.data import read_image
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.serving import input_on_record
    from dualrs.serving import verify as replay
    from dualrs.smoothing import load

    found = _record(record)
    folder = find_bundle(bundle or str(found["model"]["name"]))
    model = load(folder, device=device, **found["model"].get("execution", {}))
    x = input_on_record(found) if image is None else read_image(image)
    if x is None:
        raise ValueError(f"{record} does not hold the input, only its digest: give it with --input")
    result = replay(found, model, x, digest=bundle_digest(folder))
    if as_json:
        certificates = {rule: certificate.to_dict() for rule, certificate in result.found.items()}
        print(json.dumps({"verified": result.verified, "same": result.same, "found": certificates}))
    else:
        for rule, same in result.same.items():
            out.print(f"{rule}: {'the same certificate' if same else 'ANOTHER certificate'}: {result.found[rule]}")
        for remark in result.remarks:
            remarks.print(f"[yellow]note:[/] {remark}", soft_wrap=True)
    if not result.verified:
        raise typer.Exit(WRONG)


def _record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("record", content)
        if found.keys() >= {"model", "functions", "certificates"}:
            return dict(found)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no audit record: {error}") from error
    raise ValueError(f"{path} is no audit record: it must be one JSON object, as the service gives it")


def _samples(bundle: str, given: str | None, model: Any) -> Dataset | None:
    """What the page offers."""
    name = given or data_of(bundle)
    return None if name is None else open_data(name, model)
