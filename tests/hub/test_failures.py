"""Whatever goes wrong on the way is one line that says what to do, and what was fetched stays."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from llada_uni.errors import UserError
from llada_uni.hub import batch
from llada_uni.hub.record import FILE, check_complete
from tests.hub.conftest import ID, copy, same_files
from tests.hub.server import Fault

WAITS = {"Retry-After": "0", "RateLimit": '"api";r=0;t=0'}  # the client asks again after this, not after seconds


def pull(client, tmp_path, *more):
    return client.command("pull", ID, "--to", tmp_path / "tiny", *more)


def one_line(answer) -> str:
    """The complaint, which is a single line and no traceback."""
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err and answer.err.count("llada-uni:") == 1
    return answer.line


def test_no_such_model(client, tmp_path):
    line = one_line(client.command("pull", "org/nothing", "--to", tmp_path / "x"))
    assert "the hub has no model org/nothing, or it is private (404): check the name; for a private one set HF_TOKEN" in line
    line = one_line(client.command("generate", "a cat", "-m", "org/nothing", "-o", tmp_path / "x.png"))
    assert "there is no directory org/nothing here either" in line
    assert not list(tmp_path.iterdir())


def test_no_such_revision(client, tmp_path):
    assert "has no such revision (404); name a branch, a tag or a commit" in one_line(pull(client, tmp_path, "--revision", "x"))


def test_a_private_model_needs_the_token(client, hub, published, tmp_path):
    hub.models[ID].token = "right"
    assert "or it is private (401): check the name; for a private one set HF_TOKEN" in one_line(pull(client, tmp_path))
    client.token = "wrong"
    assert f"the hub refuses the token for {ID} (401): set HF_TOKEN to a valid one" in one_line(pull(client, tmp_path))
    client.token = "right"
    assert pull(client, tmp_path).code == 0
    assert same_files(tmp_path / "tiny", published)
    assert all(request.authorization == "Bearer right" for request in hub.asked("/resolve/"))
    record = (tmp_path / "tiny" / FILE).read_text()
    assert "right" not in record, "the token is written nowhere"


def test_a_gated_model_names_the_page_with_the_conditions(client, hub, tmp_path):
    hub.models[ID].gated = True
    assert f"is gated (403): accept its conditions at {hub.url}/{ID}, then set HF_TOKEN" in one_line(pull(client, tmp_path))


def test_a_token_that_may_not_read_it(client, hub, tmp_path):
    hub.faults = [Fault("/api/models", status=403)]
    assert "forbids org/tiny (403): the token in HF_TOKEN may not read it" in one_line(pull(client, tmp_path))


@pytest.mark.parametrize(("status", "said"), [(500, "the hub failed (500)"), (503, "the hub failed (503)")])
def test_a_hub_that_fails_while_files_are_fetched(status, said, client, hub, published, tmp_path):
    hub.faults = [Fault("/cdn/", status=status)]
    line = one_line(pull(client, tmp_path))
    assert said in line and "try again later; what was fetched is kept: the same command goes on from there" in line
    hub.faults.clear()
    assert pull(client, tmp_path).code == 0
    assert same_files(tmp_path / "tiny", published)


def test_a_hub_that_is_asked_too_often(client, hub, tmp_path):
    hub.faults = [Fault("/api/models", status=429, headers=WAITS)]
    line = one_line(pull(client, tmp_path))
    assert "asks to wait, too many requests (429) for org/tiny; try again in a few minutes" in line


def test_a_hub_that_does_not_answer_is_no_fault_where_the_cache_has_the_model(client, hub, tmp_path):
    draw = ("generate", "a cat", "-m", ID, "-o", tmp_path / "cat.json", "--decoder", "none", "--seed", 1, "--device", "cpu")
    assert client.command(*draw).code == 0
    hub.faults = [Fault("/api/models", status=503)]
    answer = client.command(*draw)
    assert answer.code == 0
    assert "the hub failed (503) at org/tiny" in answer.err and f"using the files of {ID} that the cache has" in answer.err


def test_nobody_listens(client, tmp_path):
    line = one_line(
        client.ask(
            command=["pull", ID, "--to", str(tmp_path / "tiny")],
            prelude="from huggingface_hub import constants\nconstants.ENDPOINT = 'http://127.0.0.1:9'",
        )
    )
    assert "no directory org/tiny is here, and the connection to http://127.0.0.1:9 failed at org/tiny" in line
    assert "the same command goes on from there" in line


def test_a_connection_that_drops_is_taken_up_where_it_dropped(client, hub, published, tmp_path):
    name = "image_tokenizer/image_tokenizer.safetensors"
    hub.faults = [Fault(f"/cdn/{hub.models[ID].branches['main']}/{name}", after=100_000, times=1)]
    answer = pull(client, tmp_path)
    assert answer.code == 0, answer.err
    assert same_files(tmp_path / "tiny", published)
    assert len([request for request in hub.asked(name) if "/cdn/" in request.path]) == 2
    assert hub.sent(name) <= (published / name).stat().st_size + 100_000


def test_wrong_bytes_are_found_by_their_hash_and_thrown_away(client, hub, published, tmp_path):
    name = "vae/diffusion_pytorch_model.safetensors"
    hub.faults = [Fault(f"{name}", flip=5000, method="GET")]
    line = one_line(pull(client, tmp_path))
    assert f"{name} of {ID} arrived with the SHA-256 " in line and "it was deleted: try again" in line
    assert not (tmp_path / "tiny" / name).exists()
    hub.faults = [Fault("/vae/config.json", flip=3, method="GET")]
    assert "arrived with the git id" in one_line(pull(client, tmp_path)), "small files, too"
    hub.faults.clear()
    assert pull(client, tmp_path).code == 0
    assert same_files(tmp_path / "tiny", published)


def test_a_damaged_beginning_is_fetched_again_from_the_start(client, hub, published, tmp_path):
    name = "vae/diffusion_pytorch_model.safetensors"
    partials = tmp_path / "tiny" / ".llada-uni-pull"
    hub.faults = [Fault(name, status=500)]
    assert pull(client, tmp_path).code == 2
    hub.faults.clear()
    sha256 = hub.hashes(published / name)[0]
    partials.mkdir(exist_ok=True)
    (partials / f"{sha256}.incomplete").write_bytes(b"x" * 1000)
    assert pull(client, tmp_path).code == 0
    assert same_files(tmp_path / "tiny", published)


def test_half_a_download_is_not_loaded_and_says_how_it_goes_on(client, hub, tmp_path):
    hub.faults = [Fault("/model-00002", status=500)]
    assert pull(client, tmp_path).code == 2
    folder = tmp_path / "tiny"
    line = one_line(client.command("generate", "a cat", "-m", folder, "-o", tmp_path / "x.png"))
    assert f"{folder} is half a download of {ID}: " in line
    assert f"run llada-uni pull {ID} --revision main --to {folder} again, it goes on where it stopped" in line


def test_a_new_revision_replaces_every_file_that_differs(client, hub, published, tmp_path):
    """Interrupted in one revision, gone on with in the next: nothing of the first is left among the second's."""
    hub.faults = [Fault("/model-00002", status=500)]
    assert pull(client, tmp_path).code == 2
    hub.faults.clear()
    other = copy(published, tmp_path / "other")
    for name in ("decoder/config.json", "vae/config.json"):
        (other / name).write_text(json.dumps(json.loads((other / name).read_text()), indent=7))
    shard = next(other.glob("model-00001*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    before = hub.models[ID].branches["main"]
    hub.put(ID, other)
    try:
        assert pull(client, tmp_path).code == 0
        assert same_files(tmp_path / "tiny", other)
    finally:
        hub.models[ID].branches["main"] = before


def test_a_damaged_or_foreign_file_that_is_there_is_fetched_again(client, hub, published, tmp_path):
    assert pull(client, tmp_path).code == 0
    shard = next((tmp_path / "tiny").glob("model-00001*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    (tmp_path / "tiny" / "vae" / "config.json").unlink()
    hub.log.clear()
    assert pull(client, tmp_path).code == 0
    assert same_files(tmp_path / "tiny", published)
    assert len(hub.asked("/cdn/")) == 1


def test_damage_in_the_cache_is_found_by_pull(client, hub, published):
    folder = json.loads(client.command("pull", ID, "--json").out)["folder"]
    blob = os.path.realpath(os.path.join(folder, "vae", "diffusion_pytorch_model.safetensors"))
    with open(blob, "r+b") as file:
        file.seek(100)
        file.write(b"x")
    answer = client.command("pull", ID)
    assert answer.code == 0
    assert "vae/diffusion_pytorch_model.safetensors in the cache is damaged: it is fetched again" in answer.err
    assert same_files(type(published)(folder), published)


def test_no_space_is_said_before_anything_is_fetched(client, hub, tmp_path):
    prelude = (
        "import shutil, collections\n"
        "usage = collections.namedtuple('usage', 'total used free')\n"
        "kept, shutil.disk_usage = shutil.disk_usage, lambda path: usage(10**9, 10**9, 10**6)"
    )
    try:
        answer = client.ask(command=["pull", ID, "--to", str(tmp_path / "tiny")], prelude=prelude)
    finally:
        client.python("import shutil, os\nfrom shutil import _ntuple_diskusage\n" + RESTORE)
    line = one_line(answer)
    assert "more on the disk of" in line and "which has 1 MB free; nothing was fetched: free space" in line
    assert not hub.asked("/resolve/")


RESTORE = """
def disk_usage(path):
    s = os.statvfs(path)
    return _ntuple_diskusage(s.f_blocks * s.f_frsize, (s.f_blocks - s.f_bfree) * s.f_frsize, s.f_bavail * s.f_frsize)
shutil.disk_usage = disk_usage
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_fills_on_the_way(tmp_path):
    from llada_uni.hub.failures import failures_of

    with pytest.raises(UserError, match=r"the disk is full \(.*\); free space: what was fetched is kept"), failures_of(ID):
        raise OSError(28, "No space left on device", str(tmp_path / "file"))


def test_nothing_is_written_through_a_link(client, published, tmp_path):
    assert pull(client, tmp_path).code == 0
    outside = tmp_path / "outside"
    shutil.move(tmp_path / "tiny" / "vae", outside)
    (tmp_path / "tiny" / "vae").symlink_to(outside)
    (outside / "config.json").write_text("mine")
    line = one_line(pull(client, tmp_path))
    assert "is a link that leads out of" in line and "remove the link, nothing is written through it" in line
    assert (outside / "config.json").read_text() == "mine"


def test_names_that_leave_the_directory_are_refused(client, hub, published, tmp_path):
    bad = copy(published, tmp_path / "bad")
    hub.put("org/bad", bad)
    (commit,) = hub.models["org/bad"].commits
    hub.models["org/bad"].commits[commit]["../config.json"] = bad / "config.json"
    hub.models["org/bad"].commits[commit]["image_tokenizer/../../config.json"] = bad / "config.json"
    assert client.command("pull", "org/bad", "--to", tmp_path / "out").code == 0, "they are no file of a part"
    assert not (tmp_path / "config.json").exists()


def test_other_directories_are_left_alone(client, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "letter.txt").write_text("dear")
    assert "holds something else already and is left as it is; name another directory" in one_line(pull(client, tmp_path))
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["letter.txt"]
    line = one_line(client.command("pull", ID, "--to", tmp_path / "tiny" / "letter.txt"))
    assert "is a file, a directory was expected" in line


def test_parts_are_chosen_by_name(client, hub, tmp_path):
    assert pull(client, tmp_path, "--parts", "backbone,image_tokenizer").code == 0
    assert not hub.asked("decoder_model.safetensors")
    assert not (tmp_path / "tiny" / "vae" / "diffusion_pytorch_model.safetensors").exists()
    assert (tmp_path / "tiny" / "image_tokenizer" / "sigvq_embedding.pt").is_file()
    line = one_line(pull(client, tmp_path, "--parts", "wings"))
    assert "unknown part 'wings'; allowed: backbone, image_tokenizer, vae, decoder, decoder-turbo" in line


def test_a_damaged_record_is_said_to_be_damaged(tmp_path):
    (tmp_path / FILE).write_text('{"files": {"a": 3}}')
    with pytest.raises(UserError, match="is damaged; delete it"):
        check_complete(tmp_path)
    assert batch.gigabytes(0) == "0 bytes" and batch.gigabytes(60_300_000_000) == "60.3 GB"
