"""The order of training: pure in (seed, step), every picture once per epoch, one bucket per batch."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.batch_sampler import BatchSampler, split
from lora_studio.dataset.items import PLAIN, Bucket, Draw, Picture, Sample

sizes = st.lists(
    st.tuples(st.integers(1, 3).map(lambda n: Bucket(64 * n, 64)), st.integers(1, 3)), min_size=1, max_size=20
)


def sampler(buckets, repeats, batch, seed, variants=1, flip=False, copies=1, **options) -> BatchSampler:
    """Of pictures with these buckets and repeats, each with so many variants of its caption, and so many copies."""
    texts = [""] * variants
    samples = [
        Sample(Picture(Path(str(index)), "", count, *bucket, str(index)), bucket, texts, texts * flip, [PLAIN] * copies)
        for index, (bucket, count) in enumerate(zip(buckets, repeats, strict=True))
    ]
    return BatchSampler(samples, batch, seed, **options)


def with_class(own: int, others: int, batch: int = 1, bucket=Bucket(64, 64), **options) -> BatchSampler:
    """Of so many pictures and then so many class pictures, of one bucket."""
    samples = [
        Sample(Picture(Path(str(index)), "", 1, *bucket, str(index), regularisation=index >= own), bucket, [""])
        for index in range(own + others)
    ]
    return BatchSampler(samples, batch, 3, **options)


def epoch(order: BatchSampler, number: int = 0) -> list[list[Draw]]:
    return [order.draw(number * order.steps_per_epoch + step) for step in range(order.steps_per_epoch)]


def photo(content: str) -> Picture:
    return Picture(Path(content), "", 1, 64, 64, content)


@given(sizes, st.integers(1, 5), st.integers(0, 2**31 - 1), st.integers(0, 3))
def test_every_epoch_holds_every_picture_by_its_repeats_and_every_batch_one_bucket(pictures, batch, seed, number):
    buckets, repeats = zip(*pictures, strict=True)
    batches = epoch(sampler(buckets, repeats, batch, seed), number)
    seen = Counter(draw.picture for draws in batches for draw in draws)
    extra = {bucket: -sum(r for b, r in pictures if b == bucket) % batch for bucket in buckets}
    assert all(len(draws) == batch and len({buckets[draw.picture] for draw in draws}) == 1 for draws in batches)
    assert all(seen[index] >= repeats[index] for index in range(len(buckets)))
    for bucket in set(buckets):
        assert (
            sum(seen[index] - repeats[index] for index in range(len(buckets)) if buckets[index] == bucket)
            == extra[bucket]
        )


@given(st.integers(1, 30), st.integers(0, 1000), st.integers(0, 3))
def test_an_epoch_of_one_bucket_and_single_batches_is_a_permutation(count, seed, number):
    batches = epoch(sampler([Bucket(64, 64)] * count, [1] * count, 1, seed), number)
    assert sorted(draws[0].picture for draws in batches) == list(range(count))


@given(sizes, st.integers(1, 4), st.integers(0, 2**31 - 1), st.lists(st.integers(0, 500), max_size=10))
def test_a_step_draws_the_same_whatever_was_drawn_before(pictures, batch, seed, steps):
    """A resumed run must see what the uninterrupted one would have."""
    buckets, repeats = zip(*pictures, strict=True)
    options = {"flip": True, "caption_dropout": 0.3, "variants": 3, "copies": 5}
    old = sampler(buckets, repeats, batch, seed, **options)
    drawn = [old.draw(step) for step in steps]
    assert [sampler(buckets, repeats, batch, seed, **options).draw(step) for step in steps] == drawn


def test_draws_are_the_same_on_every_machine_and_version():
    order = sampler(
        [Bucket(64, 64)] * 5 + [Bucket(64, 128)] * 2, [1] * 7, 2, 7, flip=True, caption_dropout=0.25, variants=4
    )
    assert [[(d.picture, d.flip, d.variant, d.drop_caption) for d in draws] for draws in epoch(order)] == [
        [(6, False, 0, False), (5, True, 0, False)],
        [(1, False, 0, False), (3, False, 3, False)],
        [(0, False, 1, False), (2, False, 2, True)],
        [(3, False, 0, False), (4, True, 1, False)],
    ]


def test_copies_are_drawn_equally_often_and_change_nothing_else():
    options = {"flip": True, "caption_dropout": 0.25, "variants": 4}
    plain, copied = (sampler([Bucket(64, 64)] * 5, [1] * 5, 4, 7, copies=n, **options) for n in (1, 3))
    draws = [draw for step in range(300) for draw in copied.draw(step)]
    assert [replace(draw, copy=0) for draw in draws] == [draw for step in range(300) for draw in plain.draw(step)]
    assert [draw.copy for draw in copied.draw(0)] == [2, 2, 2, 1]
    assert all(abs(count / 1200 - 1 / 3) < 0.05 for count in Counter(draw.copy for draw in draws).values())


def test_epochs_and_seeds_differ():
    buckets, repeats = [Bucket(64, 64)] * 30, [1] * 30
    orders = [
        [d[0].picture for d in epoch(sampler(buckets, repeats, 1, seed), number)]
        for seed in (0, 1)
        for number in (0, 1)
    ]
    assert len(set(map(tuple, orders))) == 4


def test_a_last_batch_is_filled_from_its_own_bucket_and_not_always_with_the_same_pictures():
    order = sampler([Bucket(64, 64)] * 5, [1] * 5, 4, 0)
    extras = [Counter(d.picture for draws in epoch(order, number) for d in draws) for number in range(20)]
    assert all(sum(count.values()) == 8 and len(count) == 5 for count in extras)
    assert len({tuple(sorted(count.items())) for count in extras}) > 5


def test_only_the_chosen_pictures_are_drawn_and_no_chance_is_taken_unasked():
    draws = [
        draw
        for number in range(3)
        for draws in epoch(sampler([Bucket(64, 64)] * 6, [2] * 6, 3, 1, among=[1, 4]), number)
        for draw in draws
    ]
    assert set(draws) == {Draw(1), Draw(4)}


def test_chances_come_out_as_asked():
    order = sampler([Bucket(64, 64)] * 10, [1] * 10, 10, 5, flip=True, caption_dropout=0.1, variants=4)
    draws = [draw for step in range(400) for draw in order.draw(step)]
    assert abs(sum(draw.flip for draw in draws) / 4000 - 0.5) < 0.03
    assert abs(sum(draw.drop_caption for draw in draws) / 4000 - 0.1) < 0.02
    counts = Counter(draw.variant for draw in draws)
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 880
    assert not any(draw.drop_caption for step in range(50) for draw in sampler([Bucket(64, 64)], [1], 4, 0).draw(step))
    assert all(draw.drop_caption for draw in sampler([Bucket(64, 64)], [1], 4, 0, caption_dropout=1.0).draw(0))


@pytest.mark.parametrize(
    ("buckets", "repeats", "batch", "among"),
    [
        ([], [], 1, None),
        ([Bucket(64, 64)], [1], 1, []),
        ([Bucket(64, 64)], [0], 1, None),
        ([Bucket(64, 64)], [1], 0, None),
    ],
)
def test_nothing_to_draw_from_is_refused(buckets, repeats, batch, among):
    with pytest.raises(ValueError, match="nothing to draw from"):
        sampler(buckets, repeats, batch, 0, among=among)


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=30), st.floats(0, 0.5), st.integers(0, 100))
def test_a_split_keeps_every_picture_once_copies_together_and_something_to_train_on(contents, share, seed):
    pictures = [photo(content) for content in contents]
    train, validation = split(pictures, share, seed)
    assert sorted(train + validation) == list(range(len(contents)))
    assert not {contents[index] for index in train} & {contents[index] for index in validation}
    assert bool(train) == bool(contents)
    assert not validation or (share > 0 and len(contents) >= 4)


@pytest.mark.parametrize(
    ("count", "share", "kept_out"), [(3, 0.5, 0), (4, 0.01, 1), (10, 0.1, 1), (40, 0.1, 4), (40, 0.0, 0), (10, 0.5, 5)]
)
def test_a_split_has_the_asked_share(count, share, kept_out):
    assert len(split([photo(f"{index:02}") for index in range(count)], share, 0)[1]) == kept_out


def test_a_picture_stays_on_its_side_when_others_come_and_names_change():
    """Otherwise a run resumed after a small change would be validated on what it was trained on."""
    contents = [f"{index:02}" for index in range(40)]
    before = {contents[index] for index in split([photo(content) for content in contents], 0.1, 3)[1]}
    more = contents[::-1] + ["new"]
    after = {more[index] for index in split([photo(content) for content in more], 0.1, 3)[1]}
    assert (
        len(before & after) >= 3
        and split([photo(content) for content in contents], 0.1, 4)[1]
        != split([photo(content) for content in contents], 0.1, 3)[1]
    )


def counts(order: BatchSampler, number: int = 0) -> Counter:
    return Counter(draw.picture for draws in epoch(order, number) for draw in draws)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 5))
def test_class_pictures_come_up_as_often_as_all_others_together(own, others, number):
    seen = counts(with_class(own, others), number)
    assert [seen[index] for index in range(own)] == [1] * own
    drawn = [seen[index] for index in range(own, own + others)]
    assert sum(drawn) == own and max(drawn) - min(drawn) <= 1


def test_class_pictures_take_turns_over_the_epochs():
    """Of ten, three an epoch: after ten epochs each came up three times."""
    order = with_class(3, 10)
    seen = sum((counts(order, number) for number in range(10)), Counter())
    assert [seen[index] for index in range(3, 13)] == [3] * 10
    assert sum(counts(order, 0)[index] > 0 for index in range(3, 13)) == 3


def test_class_pictures_are_drawn_in_proportion_from_their_buckets():
    wide, high = Bucket(128, 64), Bucket(64, 128)
    buckets = [wide] * 6 + [wide] + [high] * 2
    samples = [
        Sample(Picture(Path(str(index)), "", 1, *bucket, str(index), regularisation=index > 5), bucket, [""])
        for index, bucket in enumerate(buckets)
    ]
    seen = counts(BatchSampler(samples, 2, 0))
    assert seen == {**dict.fromkeys(range(6), 1), 6: 2, 7: 2, 8: 2}


def test_a_class_picture_alone_in_its_bucket_comes_up_too():
    """Its share of the draws rounds to none."""
    alone = Bucket(128, 64)
    samples = [
        Sample(Picture(Path(str(index)), "", 1, *bucket, str(index), regularisation=index > 2), bucket, [""])
        for index, bucket in enumerate([Bucket(64, 64)] * 103 + [alone])
    ]
    assert counts(BatchSampler(samples, 1, 0))[103] == 1


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3), st.lists(st.integers(0, 200), max_size=5))
def test_with_class_pictures_a_step_draws_the_same_whatever_was_drawn_before(own, others, batch, steps):
    old = with_class(own, others, batch)
    drawn = [old.draw(step) for step in steps]
    assert [with_class(own, others, batch).draw(step) for step in steps] == drawn


def test_class_pictures_alone_are_nothing_to_draw_from():
    with pytest.raises(ValueError, match="nothing to draw from"):
        with_class(0, 3)


def test_class_pictures_are_never_held_out_and_change_nothing_for_others():
    own = [photo(str(index)) for index in range(10)]
    others = [Picture(Path("c"), "", 1, 64, 64, content, regularisation=True) for content in ("1", "2", "x")]
    train, held_out = split(own, 0.3, 5)
    assert split([*own, *others], 0.3, 5) == ([*train, 10, 11, 12], held_out)
