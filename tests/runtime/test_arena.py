from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.runtime.arena import layout, least
from gnomon.runtime.buffer import ALIGNMENT

blocks = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 10), st.integers(0, 10)).map(
        lambda b: (b[0], (min(b[1:]), max(b[1:])))
    ),
    max_size=30,
)


@given(blocks)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_blocks_alive_together_never_overlap(blocks):
    sizes, lives = [b[0] for b in blocks], [b[1] for b in blocks]
    offsets, total = layout(sizes, lives)
    for i in range(len(blocks)):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + sizes[i] <= total
        assert sum(sizes[k] for k in range(len(blocks)) if lives[k][0] <= lives[i][0] <= lives[k][1]) <= total
        for j in range(i):
            together = lives[i][0] <= lives[j][1] and lives[j][0] <= lives[i][1]
            if together and sizes[i] and sizes[j]:
                assert offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]


def test_blocks_never_alive_together_share():
    assert layout([640, 640, 640], [(0, 1), (2, 3), (4, 5)]) == ([0, 0, 0], 640)


def test_a_chain_takes_two_places():
    assert layout([64] * 6, [(i, i + 1) for i in range(6)])[1] == 128


def test_the_tightest_gap_is_taken():
    sizes = [640, 128, 64, 64]
    lives = [(0, 0), (1, 1), (1, 9), (0, 9)]
    offsets, total = layout(sizes, lives)
    assert total == 640 + 64
    assert offsets[1] != offsets[2]


def test_least_is_what_is_alive_at_once():
    assert least([], []) == 0
    assert least([64, 128, 1], [(0, 1), (1, 2), (2, 2)]) == 192
    assert least([0, 640], [(0, 9), (3, 3)]) == 640


def test_crowded_steps_go_first_where_the_largest_first_takes_more():
    sizes = [64 * n for n in (4, 3, 4, 2)]
    lives = [(1, 4), (3, 4), (0, 1), (2, 4)]  # the first and third lie at 0 and 256; then the second goes behind both
    assert layout(sizes, lives)[1] == least(sizes, lives) == 64 * 9
