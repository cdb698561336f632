"""Models from the Hub and to it: only what model.json names, only as model.json has it, and of one commit."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

import dualrs
from dualrs import DualSmoothedClassifier, SmoothedClassifier
from dualrs.models import BundleError, bundle_digest, upload_bundle

ARGUMENTS = {"n0": 20, "n": 200}


@pytest.fixture
def bundle(dual, tmp_path):
    return dual.save(tmp_path / "bundle")


def changed(folder, change):
    """The content of model.json after a change to it."""
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    change(manifest)
    return json.dumps(manifest).encode()


# From the Hub.


def test_a_model_comes_back_from_the_hub(hub, dual, bundle, image):
    hub.commit_folder("me/model", bundle)
    model = DualSmoothedClassifier.from_pretrained("me/model", backend="torch")
    assert isinstance(model, DualSmoothedClassifier)
    assert (model.sigmas, model.sigma_e, model.classes, model.input) == (
        dual.sigmas,
        dual.sigma_e,
        dual.classes,
        dual.input,
    )
    assert model.certify(image, **ARGUMENTS) == dual.certify(image, **ARGUMENTS)


def test_so_it_does_where_the_endpoint_is_set_by_the_environment(hub, dual, bundle, image, tmp_path):
    commit = hub.commit_folder("me/model", bundle)
    script = (
        "import dualrs, json, torch\n"
        f"model = dualrs.DualSmoothedClassifier.from_pretrained('me/model', revision={commit!r}, backend='torch')\n"
        f"x = torch.tensor({image.tolist()})\n"
        f"print(json.dumps(model.certify(x, **{ARGUMENTS}).to_dict()))\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(dual.certify(image, **ARGUMENTS).to_dict()))


def test_a_revision_is_that_revision(hub, dual, single, bundle, tmp_path):
    first = hub.commit_folder("me/model", bundle)
    hub.commit_folder("me/model", single.save(tmp_path / "single"))
    assert isinstance(SmoothedClassifier.from_pretrained("me/model"), SmoothedClassifier)
    assert DualSmoothedClassifier.from_pretrained("me/model", revision=first).sigmas == dual.sigmas
    with pytest.raises(TypeError, match="me/model holds a SmoothedClassifier: load it by that class"):
        DualSmoothedClassifier.from_pretrained("me/model")


def test_a_branch_that_moves_meanwhile_gives_files_of_one_commit(hub, bundle, monkeypatch, image):
    commit = hub.commit_folder("me/model", bundle)
    expected = dualrs.load(bundle, backend="torch").certify(image, **ARGUMENTS)
    weights = next(path.name for path in bundle.glob("*.safetensors"))

    class Moving(list):
        def append(self, request):
            super().append(request)
            if request[1].endswith("model.json") and request[0] == "GET":
                hub.commit("me/model", {weights: b"other weights"})

    monkeypatch.setattr(hub, "requests", Moving())
    model = DualSmoothedClassifier.from_pretrained("me/model", backend="torch")
    assert hub.repos["me/model"]["main"] != commit
    assert model.certify(image, **ARGUMENTS) == expected


def test_only_what_model_json_names_is_fetched(hub, bundle):
    extra = {"pytorch_model.bin": b"\x80\x04.", "config.json": b'{"batch_size": 1, "arithmetic": "exact"}'}
    hub.commit_folder("me/model", bundle, **extra)
    model = DualSmoothedClassifier.from_pretrained("me/model")
    assert hub.fetched() == {"model.json", *(path.name for path in bundle.glob("*.safetensors"))}
    assert model.engine().batch_size == 256  # a config.json is not asked


def test_a_file_that_is_missing_is_named(hub, bundle):
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    gone = next(name for name in files if name.startswith("expert"))
    del files[gone]
    hub.commit("me/model", files)
    with pytest.raises(BundleError, match=f"me/model at .* has no file {gone}, which its model.json names"):
        DualSmoothedClassifier.from_pretrained("me/model")
    hub.commit("me/empty", {"README.md": b"nothing"})
    with pytest.raises(BundleError, match=r"me/empty at main has no file model\.json, so it holds no bundle"):
        SmoothedClassifier.from_pretrained("me/empty")


@pytest.mark.parametrize("name", ["../../outside", "a/b", "/etc/passwd", ".hidden", "..", "*"])
def test_files_outside_of_the_bundle_are_refused_before_they_are_asked_for(hub, bundle, name):
    hub.commit_folder(
        "me/model",
        bundle,
        **{"model.json": changed(bundle, lambda manifest: manifest["parts"]["estimator"].update(file=name))},
    )
    with pytest.raises(BundleError, match=r"parts\.estimator\.file"):
        DualSmoothedClassifier.from_pretrained("me/model")
    assert hub.fetched() == {"model.json"}


def test_altered_weights_are_refused(hub, bundle):
    content = (bundle / "estimator.safetensors").read_bytes()
    hub.commit_folder("me/model", bundle, **{"estimator.safetensors": content[:-1] + b"\x7f"})
    with pytest.raises(BundleError, match=r"estimator\.safetensors .* is truncated or altered"):
        DualSmoothedClassifier.from_pretrained("me/model")


def test_a_digest_names_the_very_model(hub, bundle):
    hub.commit_folder("me/model", bundle)
    digest = bundle_digest(bundle)
    assert DualSmoothedClassifier.from_pretrained("me/model", digest=digest).sigmas == (0.25, 0.5)
    other = changed(bundle, lambda manifest: manifest.update(sigma_e=2.0))
    hub.commit_folder("me/model", bundle, **{"model.json": other})
    hub.requests.clear()
    with pytest.raises(BundleError, match=f"me/model at main is another model.*asked for was {digest}"):
        DualSmoothedClassifier.from_pretrained("me/model", digest=digest)
    assert hub.fetched() == {"model.json"}
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits; got 'beef'"):
        DualSmoothedClassifier.from_pretrained("me/model", digest="beef")


def test_private_repositories_want_the_token(hub, bundle, token):
    hub.commit_folder("me/model", bundle)
    hub.private.add("me/model")
    with pytest.raises(RepositoryNotFoundError):
        DualSmoothedClassifier.from_pretrained("me/model")
    assert DualSmoothedClassifier.from_pretrained("me/model", token=token).num_classes == 3


def test_what_is_in_the_cache_needs_no_hub(hub, bundle, tmp_path):
    hub.commit_folder("me/model", bundle)
    with pytest.raises(LocalEntryNotFoundError):
        DualSmoothedClassifier.from_pretrained("me/model", local_files_only=True)
    DualSmoothedClassifier.from_pretrained("me/model", cache_dir=tmp_path / "mine")
    hub.requests.clear()
    model = DualSmoothedClassifier.from_pretrained("me/model", cache_dir=tmp_path / "mine", local_files_only=True)
    assert model.num_classes == 3
    assert hub.requests == []


def test_what_is_nowhere_is_an_error_that_says_so(hub, bundle, tmp_path):
    hub.commit_folder("me/model", bundle)
    with pytest.raises(RepositoryNotFoundError, match="me/absent"):
        DualSmoothedClassifier.from_pretrained("me/absent")
    with pytest.raises(RevisionNotFoundError):
        DualSmoothedClassifier.from_pretrained("me/model", revision="v9")
    with pytest.raises(ValueError, match="Repo id"):
        DualSmoothedClassifier.from_pretrained("../model/x")
    with pytest.raises(BundleError, match="there is no folder"):
        DualSmoothedClassifier.from_pretrained(tmp_path / "absent")


# From folders.


def test_folders_and_shipped_models_come_first(hub, bundle, tmp_path):
    assert DualSmoothedClassifier.from_pretrained(str(bundle)).classes[0] == "cat"
    assert DualSmoothedClassifier.from_pretrained(bundle, digest=bundle_digest(bundle), batch_size=7).num_classes == 3
    assert DualSmoothedClassifier.from_pretrained("fashion-mnist").sigmas == (0.25, 0.5, 1.0)
    with pytest.raises(BundleError, match="is another model"):
        DualSmoothedClassifier.from_pretrained(bundle, digest="0" * 64)
    with pytest.raises(ValueError, match="is a folder, which has no revisions: leave revision='main' away"):
        DualSmoothedClassifier.from_pretrained(bundle, revision="main")
    with pytest.raises(BundleError, match="neither a bundle"):
        DualSmoothedClassifier.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="unknown arguments colour"):
        DualSmoothedClassifier.from_pretrained(bundle, colour="red")
    assert hub.requests == []


def test_a_saved_model_has_a_card_and_is_the_same_bundle(dual, bundle, tmp_path):
    folder = dual.save_pretrained(tmp_path / "saved", license="mit")
    assert bundle_digest(folder) == bundle_digest(bundle)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert bundle_digest(folder) in card
    assert DualSmoothedClassifier.from_pretrained(folder).sigma_e == 1.0
    dual.save_pretrained(folder)  # a bundle is replaced
    assert "license" not in (folder / "README.md").read_text(encoding="utf-8").partition("\n---\n")[0]


# To the Hub.


def test_a_model_that_is_pushed_can_be_loaded(hub, dual, image, token):
    address = dual.push_to_hub("me/new", token=token, private=True, license="mit")
    commit = hub.repos["me/new"]["main"]
    assert address == f"{hub.url}/me/new/commit/{commit}"
    assert "me/new" in hub.private
    files = {"model.json", "README.md", "estimator.safetensors", "expert-0.25.safetensors"}
    assert hub.commits[commit].keys() - {".gitattributes"} == files
    model = DualSmoothedClassifier.from_pretrained("me/new", revision=commit, token=token, backend="torch")
    assert model.certify(image, **ARGUMENTS) == dual.certify(image, **ARGUMENTS)
    card = hub.commits[commit]["README.md"].decode()
    assert '"me/new",\n    revision="main",' in card


def test_a_single_model_goes_to_a_branch(hub, single, token):
    single.push_to_hub("me/single", token=token)
    main = hub.repos["me/single"]["main"]
    single.push_to_hub("me/single", token=token, branch="half", half=True, commit_message="half the size")
    assert hub.repos["me/single"]["main"] == main
    assert 'revision="half",' in hub.commits[hub.repos["me/single"]["half"]]["README.md"].decode()
    assert SmoothedClassifier.from_pretrained("me/single", revision="half").sigma == 0.5


def test_who_may_not_push_is_told(hub, single):
    with pytest.raises(OSError, match="401"):
        single.push_to_hub("me/single", token="hf_wrong")
    assert hub.repos == {}


def test_files_that_are_no_part_of_the_bundle_stay_here(hub, bundle, token):
    (bundle / "secrets.env").write_text("PASSWORD=1")
    upload_bundle(bundle, "me/model", also=(), token=token)
    assert "secrets.env" not in hub.commits[hub.repos["me/model"]["main"]]
