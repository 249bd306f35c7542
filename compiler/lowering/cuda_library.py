"""What libraries compute on CUDA: large products by cublasLt, convolutions of many channels by cuDNN.

    pieces(rows, target, label, constant, generated)     what runs a row program, in order; None: kernels of our own

A product is a library's if it is large, reads stored arrays as matrices with a leading dimension, and a library is
there (`Target.libraries`). What follows it is the library's too as far as it offers just that: a factor, an array that
is added, a bias for each column, relu, and gelu in its tanh form. If more follows, the product and that are two steps,
where the sums are deep enough to pay for writing and reading the product once more; so are picking the rows of a batch
and their product.

The row-major result [m, n] is to cublasLt the column-major [n, m], and so is the rest: `Library.parameters` are told in
row-major terms, and the runtime turns them round.

    cublaslt.matmul   d = act(alpha * x w + beta * c + bias)      inputs x, w, c if beta is not 0, bias if there is one
        m, n, k, batch         sizes of d [batch, m, n] and of the sums
        x, w                   'plain' ([m, k], [k, n]) or 'transposed' ([k, m], [n, k]) as stored
        ld_*, stride_*, at_*   of x, w, d and c: from row to row, from matrix to matrix, and where the first begins;
                               what is not told is 0
        at_bias                where the bias begins; without it there is none
        alpha, beta, epilogue ('none', 'relu', 'gelu'), compute ('float32', 'tf32', 'bfloat16')
                      With epilogue 'relu_mask' a second output has a bit for each element of d: is it positive? With
                      'relu_gradient', such bits are the last input, and where they are 0 the result is 0; a second
                      output has the sums over all rows if there is one (see `cuda_masks`).
        ld_mask                bits from row to row
    cudnn.*           see `cuda_convolution`

The bound on the size is that below which a generated tile is as quick. cublasLt's relu makes 0 of NaN, so that a
network which has diverged looks sound: it is used only if the target asks for it ('cublaslt.relu' among its libraries).
NVIDIA developer forums, topic 329783, "Incorrect result of cublasLtMatmul with CUBLASLT_EPILOGUE_RELU when input is
NaN". That its gelu is the one with tanh is told in PyTorch's pull request 104061; that in float32 and bfloat16 it has
been a pass of its own on some cards, in karpathy/llm.c's 338: what each epilogue gains is still to be timed.
"""

from __future__ import annotations

from gnomon.compiler.lowering.cuda_call import NOTHING, Around, Call, Generated, Work
from gnomon.compiler.lowering.cuda_convolution import convolution
from gnomon.compiler.lowering.cuda_epilogue import Sums
from gnomon.compiler.lowering.cuda_matmul import matmul
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.targets import Target


def pieces(
    rows: RowProgram,
    target: Target,
    label: str,
    constant: frozenset[str],
    generated: Generated,
    around: Around = NOTHING,
) -> list[Piece | Call] | None:
    """What runs a row program in order, a library's routine among it; None if none computes it, or none pays."""
    sums = Sums.of(rows)
    if sums is None or all(b.name in constant for b in rows.reads):
        return None  # what is computed once need not be quick
    work = Work(rows, sums, target, label, constant, generated, around)
    if "cudnn" in target.libraries:
        found = convolution(work)
        if found is not None:
            return found
    return matmul(work) if "cublaslt" in target.libraries else None


__all__ = ["NOTHING", "Around", "Call", "pieces"]
