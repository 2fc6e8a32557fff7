"""The codec of feature maps, against a reference decoder that takes one number at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.errors import WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import encode_photos
from indexer.codec.quality import QUALITIES, bytes_per_photo
from indexer.errors import IndexDamagedError

CODED = [quality for quality in QUALITIES if quality != "none"]
BITS = {"high": 8, "standard": 4, "small": 4}


def make_sample(
    count: int, grid: int = 6, dim: int = 24, seed: int = 0, height: int = 60
) -> list[FeatureMaps]:
    """Photos of width 60 whose tokens have a mean and a falling spectrum, as real ones have."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    spread = 2.0 ** (-np.arange(dim) / 4)
    turns = [np.linalg.qr(shared.normal(size=(dim, dim)))[0] for _ in range(2)]
    means = shared.normal(size=(2, dim))
    photos = []
    for i in range(count):
        appearance, semantic = (
            (rng.normal(size=(grid, grid, dim)) * spread @ turn + mean).astype(np.float16)
            for turn, mean in zip(turns, means, strict=True)
        )
        frame = Frame(width=60, height=height, size=8 * grid, grid=grid)
        photos.append(FeatureMaps(appearance, semantic, frame, str(i)))
    return photos


def stacked(photos: list[FeatureMaps]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    return np.stack([p.appearance for p in photos]), np.stack([p.semantic for p in photos])


def words(count: int, dim: int = 24, seed: int = 5) -> NDArray[np.float32]:
    """Class vectors in a few directions only."""
    rng = np.random.default_rng(seed)
    spread = 3.0 ** -np.arange(dim)
    return (rng.normal(size=(count, dim)) * spread).astype(np.float32)


def decoded(codec: Codec, encoded: NDArray[np.uint8]) -> tuple[np.ndarray, np.ndarray]:
    appearance, semantic = codec.decode(torch.from_numpy(encoded))
    return appearance.numpy(), semantic.numpy()


def naive_decode(path: Path, quality: str, photo: bytes, cells: int, dim: int) -> np.ndarray:
    """(2, cells, d) float64 from a photo and the file of its codec, as `Codec` describes them."""
    from safetensors.numpy import load_file

    tensors = {name: value.astype(np.float64) for name, value in load_file(path).items()}
    result = np.empty((2, cells, dim))
    place = 0
    for which, name in enumerate(("appearance", "semantic")):
        kept = tensors[f"{name}.backward"].shape[0]
        width = kept if BITS[quality] == 8 else (kept + 1) // 2
        scales = place + cells * width
        for cell in range(cells):
            token = photo[place + cell * width : place + (cell + 1) * width]
            step = float(tensors[f"{name}.unit"]) * 2 ** ((photo[scales + cell] - 128) / 8)
            vector = tensors["mean"][which * dim : (which + 1) * dim].copy()
            for i in range(kept):
                if BITS[quality] == 8:
                    number = token[i] - 127.5
                else:
                    number = (token[i] % 16 if i < width else token[i - width] // 16) - 7.5
                vector += number * step * tensors[f"{name}.backward"][i]
            result[which, cell] = vector
        place = scales + cells
    assert place == len(photo)
    return result


def test_sizes() -> None:
    assert bytes_per_photo("none", 32, 640) == 2 * 32 * 32 * 640 * 2
    assert bytes_per_photo("standard", 32, 640) == 65_536
    assert bytes_per_photo("small", 32, 640) == 32_768
    assert 2 <= bytes_per_photo("high", 32, 640) / 65_536 <= 3
    assert [bytes_per_photo(quality, 24, 128) for quality in QUALITIES] == [
        294_912,
        38_016,
        19_584,
        8_064,
    ]


def test_an_unknown_quality_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(WaldoError, match=r"best.*none, high, standard, small"):
        bytes_per_photo("best", 32, 640)
    with pytest.raises(WaldoError, match="best"):
        Codec.fit("best", make_sample(1), words(0))


def test_none_is_lossless() -> None:
    photos = make_sample(3)
    codec = Codec.fit("none", photos, words(4))
    appearance, semantic = stacked(photos)
    encoded = codec.encode(appearance, semantic)
    assert encoded[1].tobytes() == appearance[1].tobytes() + semantic[1].tobytes()
    back = decoded(codec, encoded)
    np.testing.assert_array_equal(back[0], appearance.reshape(3, 36, 24).astype(np.float32))
    np.testing.assert_array_equal(back[1], semantic.reshape(3, 36, 24).astype(np.float32))


@given(
    quality=st.sampled_from(CODED),
    dim=st.integers(2, 40),
    grid=st.integers(2, 6),
    count=st.integers(1, 3),
    height=st.sampled_from([60, 33, 7]),
    n_words=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_decodes_as_the_format_says(
    tmp_path_factory: pytest.TempPathFactory,
    quality: str,
    dim: int,
    grid: int,
    count: int,
    height: int,
    n_words: int,
    seed: int,
) -> None:
    photos = make_sample(count, grid, dim, seed, height)
    codec = Codec.fit(quality, photos, words(n_words, dim, seed))
    assert (codec.quality, codec.grid, codec.dim, codec.fitted_on) == (quality, grid, dim, count)
    encoded = codec.encode(*stacked(photos))
    assert encoded.dtype == np.uint8
    assert encoded.shape == (count, bytes_per_photo(quality, grid, dim))
    path = tmp_path_factory.mktemp("codec") / "codec.safetensors"
    codec.save(path)
    back = decoded(codec, encoded)
    for i in range(count):
        expected = naive_decode(path, quality, encoded[i].tobytes(), grid * grid, dim)
        for which in range(2):
            assert back[which].dtype == np.float32
            # float32 sums of at most 40 terms.
            scale = np.abs(expected[which]).max()
            np.testing.assert_allclose(back[which][i], expected[which], atol=1e-5 * scale)


@pytest.mark.parametrize(("quality", "most"), [("high", 1e-4), ("standard", 0.02), ("small", 0.02)])
def test_what_is_kept_comes_back_but_for_rounding(quality: str, most: float) -> None:
    # All of d = 8 is kept. The codec was not fitted on these photos.
    codec = Codec.fit(quality, make_sample(20, dim=8), words(30, 8))
    fresh = make_sample(5, dim=8, seed=1)
    for which, (back, true) in enumerate(
        zip(decoded(codec, codec.encode(*stacked(fresh))), stacked(fresh), strict=True)
    ):
        tokens = true.reshape(back.shape).astype(np.float64)
        spread = tokens - codec.mean[8 * which : 8 * which + 8]
        if which == 1:
            # Only the products of F_S with words have to come back.
            back, tokens, spread = (x @ words(30, 8).T for x in (back, tokens, spread))
        assert np.square(back - tokens).sum() < most * np.square(spread).sum()


@pytest.mark.parametrize(("quality", "most"), [("high", 0.003), ("standard", 0.03)])
def test_inner_products_of_appearance_are_kept(quality: str, most: float) -> None:
    dim = 64
    codec = Codec.fit(quality, make_sample(20, dim=dim), words(0, dim))
    fresh = make_sample(4, dim=dim, seed=2)
    back = decoded(codec, codec.encode(*stacked(fresh)))[0].reshape(-1, dim)
    mean = codec.mean[:dim].astype(np.float64)
    tokens = stacked(fresh)[0].reshape(-1, dim).astype(np.float64) - mean
    true, got = tokens @ tokens.T, tokens @ (back - mean).T
    assert np.square(got - true).mean() < most**2 * 4 * np.square(tokens).sum(axis=1).mean() ** 2
    assert np.corrcoef(true.ravel(), got.ravel())[0, 1] > 1 - most


def test_the_semantic_projection_is_as_good_as_any_for_the_vocabulary() -> None:
    """Compared with the best projection to as few numbers, by float64 SVD of the products.

    Words are made alike in how F_S . C varies: the codec counts errors relative to that.
    """
    dim, quality = 64, "high"
    photos = make_sample(30, dim=dim)
    tokens = np.concatenate([p.semantic.reshape(-1, dim) for p in photos]).astype(np.float64)
    centred = tokens - tokens.mean(axis=0)
    vocabulary = np.random.default_rng(8).normal(size=(200, dim))
    vocabulary /= (centred @ vocabulary.T).std(axis=0)[:, None]
    codec = Codec.fit(quality, photos, vocabulary.astype(np.float32))
    back = decoded(codec, codec.encode(*stacked(photos)))[1].reshape(-1, dim)
    error = (back - tokens) @ vocabulary.T
    kept = 8  # of d = 64: 4 / 32
    singular = np.linalg.svd(centred @ vocabulary.T, compute_uv=False)
    least = np.square(singular[kept:]).sum()
    assert least <= np.square(error).sum() < 1.02 * least + 1e-3 * np.square(singular).sum()
    # There is no bias: storing a map makes no word score higher or lower.
    assert np.abs(error.mean(axis=0)).max() < 0.01


def test_a_vocabulary_makes_its_words_more_exact() -> None:
    dim = 64
    photos, vocabulary = make_sample(30, dim=dim), words(100, dim)
    errors = []
    for given_words in (words(0, dim), vocabulary):
        codec = Codec.fit("standard", photos, given_words)
        back = decoded(codec, codec.encode(*stacked(photos)))[1].reshape(-1, dim)
        true = stacked(photos)[1].reshape(-1, dim).astype(np.float32)
        errors.append(np.square((back - true) @ vocabulary.T).mean())
    assert errors[1] < errors[0] / 2


def test_mean_is_over_photos() -> None:
    photos = [*make_sample(2, height=60), *make_sample(1, seed=3, height=20)]
    codec = Codec.fit("standard", photos, words(0))
    expected = np.mean([p.pooled().astype(np.float64) for p in photos], axis=0)
    np.testing.assert_allclose(codec.mean, expected, atol=1e-6)
    assert codec.mean.dtype == np.float32


@pytest.mark.parametrize("quality", QUALITIES)
def test_padding_is_stored_but_does_not_change_the_fit(quality: str, tmp_path: Path) -> None:
    photos = make_sample(3, height=30)
    saved = []
    for name, padding in (("a", 0.0), ("b", 1000.0)):
        for photo in photos:
            for maps in (photo.appearance, photo.semantic):
                maps[~photo.frame.valid()] = padding
        codec = Codec.fit(quality, photos, words(5))
        codec.save(tmp_path / name)
        saved.append((tmp_path / name).read_bytes())
    assert saved[0] == saved[1]
    # The padding of the last pass is 1000, far from everything else, and it still comes back.
    back = decoded(codec, codec.encode(*stacked(photos)))[0].reshape(3, 6, 6, 24)
    outside = ~photos[0].frame.valid()
    norms = np.linalg.norm(back[:, outside], axis=-1)
    assert (norms > 500).all()


@pytest.mark.parametrize("quality", QUALITIES)
def test_one_photo_is_enough(quality: str) -> None:
    photos = make_sample(1, grid=4, dim=6, height=4)  # a row of 4 tokens
    codec = Codec.fit(quality, photos, words(3, 6))
    back = decoded(codec, codec.encode(*stacked(make_sample(2, 4, 6, seed=1))))
    assert all(np.isfinite(values).all() for values in back)
    own = decoded(codec, codec.encode(*stacked(photos)))[0][0, :4]
    np.testing.assert_allclose(own, photos[0].appearance[0], atol=0.5)


@pytest.mark.parametrize("quality", QUALITIES)
def test_maps_without_any_variation(quality: str) -> None:
    """Baselines have no semantic map: all zero."""
    [photo] = make_sample(1)
    flat = FeatureMaps(photo.appearance * 0 + 2, photo.semantic * 0, photo.frame, "")
    codec = Codec.fit(quality, [flat], words(0))
    back = decoded(codec, codec.encode(*stacked([flat])))
    np.testing.assert_allclose(back[0], 2.0, atol=1e-4)
    np.testing.assert_allclose(back[1], 0.0, atol=1e-4)


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_photo_alone_is_as_in_a_batch(quality: str) -> None:
    photos = make_sample(5)
    codec = Codec.fit(quality, photos, words(9))
    batch = codec.encode(*stacked(photos))
    together = decoded(codec, batch)
    for i, photo in enumerate(photos):
        alone = codec.encode(*stacked([photo]))
        np.testing.assert_array_equal(alone[0], batch[i])
        for one, many in zip(decoded(codec, alone), together, strict=True):
            np.testing.assert_allclose(one[0], many[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_fit_depends_on_its_inputs_alone(quality: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Codec.fit(quality, make_sample(4), words(9)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_saved_codec_is_the_same(quality: str, tmp_path: Path) -> None:
    photos = make_sample(4)
    codec = Codec.fit(quality, photos, words(9))
    codec.save(tmp_path / "codec")
    again = Codec.load(tmp_path / "codec")
    assert (again.quality, again.grid, again.dim, again.fitted_on) == (quality, 6, 24, 4)
    np.testing.assert_array_equal(again.mean, codec.mean)
    encoded = codec.encode(*stacked(photos))
    np.testing.assert_array_equal(again.encode(*stacked(photos)), encoded)
    for one, other in zip(decoded(codec, encoded), decoded(again, encoded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_codec_cannot_be_changed() -> None:
    codec = Codec.fit("standard", make_sample(1), words(0))
    with pytest.raises(ValueError, match="read-only"):
        codec.mean[0] = 1.0


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def damage_pickle(path: Path) -> None:
    torch.save({"mean": torch.zeros(3)}, path)


def damage_missing(path: Path) -> None:
    path.unlink()


def change(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> None:
    """Write the file again with some tensors and metadata replaced or added."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as file:
        old = file.metadata()
    save_file(load_file(path) | tensors, path, old | metadata)


def damage_shape(path: Path) -> None:
    change(path, {"semantic.backward": np.zeros((3, 24), np.float32)})


def damage_dtype(path: Path) -> None:
    change(path, {"mean": np.zeros(48)})


def damage_number(path: Path) -> None:
    change(path, {"appearance.unit": np.array(np.nan, np.float32)})


def damage_quality(path: Path) -> None:
    change(path, {}, quality="best")


def damage_sizes(path: Path) -> None:
    change(path, {"sizes": np.array([6, 24])})


def damage_dim(path: Path) -> None:
    change(path, {"sizes": np.array([6, 0, 1])})


def damage_no_metadata(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file(load_file(path), path)


def damage_tensor_gone(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    del tensors["semantic.unit"]
    save_file(tensors, path, {"quality": "standard"})


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_header,
        damage_pickle,
        damage_missing,
        damage_shape,
        damage_dtype,
        damage_number,
        damage_quality,
        damage_sizes,
        damage_dim,
        damage_no_metadata,
        damage_tensor_gone,
    ],
    ids=lambda damage: damage.__name__.removeprefix("damage_"),
)
def test_a_damaged_file_is_refused(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "codec"
    Codec.fit("standard", make_sample(1), words(0)).save(path)
    assert callable(damage)
    damage(path)
    with pytest.raises(IndexDamagedError, match=r"as a codec \(.+\)"):
        Codec.load(path)


def test_photos_without_finite_features_are_not_encoded() -> None:
    photos = make_sample(3)
    photos[1].appearance[0, 0, 0] = np.inf
    codec = Codec.fit("standard", photos[::2], words(10))
    found = encode_photos(codec, photos)
    assert list(found) == ["0", "2"]
    np.testing.assert_array_equal(found["2"].encoded, codec.encode(*stacked(photos[2:]))[0])
    assert encode_photos(codec, photos[1:2]) == {}
