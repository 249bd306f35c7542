// A stand-in for cuDNN on the host: the functions of its older interface that gnomon calls, by plain loops, for tensors
// as NHWC and kernels as KRSC. Descriptors carry a mark of their kind; what cuDNN documents that it refuses is refused,
// with its status. The heuristic first offers what gnomon must not take: algorithms that are not deterministic, need
// too much memory or round what should be exact. Numbers are those of NVIDIA's cudnn_graph.h, cudnn_ops.h, cudnn_cnn.h.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1001, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };
enum { HANDLE = 0xd771, TENSOR, FILTER, CONVOLUTION, ACTIVATION };
enum { NHWC = 1, FLOAT = 0, BFLOAT = 9, CROSS_CORRELATION = 1 };
enum { DEFAULT_MATH, TENSOR_OP, CONVERSION, FMA };

typedef struct { int mark; void *stream; } Handle;
typedef struct { int mark, format, type, n, c, h, w; } Tensor;  // of a kernel n is k
typedef struct { int mark, pad[2], stride[2], dilation[2], mode, compute, math; } Convolution;
typedef struct { int mark, mode, nan; } Activation;
typedef struct { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; } Performance;

static int living, chosen, run;
static char last[256];
int test_living(void) { return living; }
int test_chosen(void) { return chosen; }
int test_run(void) { return run; }

const char *cudnnGetErrorString(int s) {
    return s == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : s == NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED" : "CUDNN_STATUS_NOT_INITIALIZED";
}
void cudnnGetLastErrorString(char *message, size_t size) { snprintf(message, size, "%s", last); }

static int refused(int status, const char *why) {
    snprintf(last, sizeof last, "%s", why);
    return status;
}
#define REQUIRE(condition) if (!(condition)) return refused(BAD_PARAM, "!(" #condition ")")

static int is(const void *p, int mark) { return p && *(const int *)p == mark; }
static int create(void **p, size_t size, int mark) {
    *(int *)(*p = calloc(1, size)) = mark;
    living++;
    return SUCCESS;
}
static int destroy(void *p, int mark) {
    REQUIRE(is(p, mark));
    memset(p, 0, sizeof(int));
    free(p);
    living--;
    return SUCCESS;
}

int cudnnCreate(void **p) { return create(p, sizeof(Handle), HANDLE); }
int cudnnDestroy(void *p) { return destroy(p, HANDLE); }
int cudnnSetStream(void *p, void *stream) {
    REQUIRE(is(p, HANDLE));
    ((Handle *)p)->stream = stream;
    return SUCCESS;
}
int cudnnCreateTensorDescriptor(void **p) { return create(p, sizeof(Tensor), TENSOR); }
int cudnnDestroyTensorDescriptor(void *p) { return destroy(p, TENSOR); }
int cudnnCreateFilterDescriptor(void **p) { return create(p, sizeof(Tensor), FILTER); }
int cudnnDestroyFilterDescriptor(void *p) { return destroy(p, FILTER); }
int cudnnCreateConvolutionDescriptor(void **p) { return create(p, sizeof(Convolution), CONVOLUTION); }
int cudnnDestroyConvolutionDescriptor(void *p) { return destroy(p, CONVOLUTION); }
int cudnnCreateActivationDescriptor(void **p) { return create(p, sizeof(Activation), ACTIVATION); }
int cudnnDestroyActivationDescriptor(void *p) { return destroy(p, ACTIVATION); }

static int fill(Tensor *t, int format, int type, int n, int c, int h, int w) {
    REQUIRE(format == NHWC && (type == FLOAT || type == BFLOAT));
    REQUIRE(n > 0 && c > 0 && h > 0 && w > 0);
    t->format = format, t->type = type, t->n = n, t->c = c, t->h = h, t->w = w;
    return SUCCESS;
}
int cudnnSetTensor4dDescriptor(void *p, int format, int type, int n, int c, int h, int w) {
    REQUIRE(is(p, TENSOR));
    return fill(p, format, type, n, c, h, w);
}
int cudnnSetFilter4dDescriptor(void *p, int type, int format, int k, int c, int h, int w) {
    REQUIRE(is(p, FILTER));
    return fill(p, format, type, k, c, h, w);
}
int cudnnSetConvolution2dDescriptor(void *p, int ph, int pw, int u, int v, int dh, int dw, int mode, int compute) {
    Convolution *c = p;
    REQUIRE(is(p, CONVOLUTION));
    REQUIRE(ph >= 0 && pw >= 0 && u > 0 && v > 0 && dh > 0 && dw > 0);
    REQUIRE(mode == 0 || mode == 1);
    int mark = c->mark;
    *c = (Convolution){mark, {ph, pw}, {u, v}, {dh, dw}, mode, compute, DEFAULT_MATH};
    return SUCCESS;
}
int cudnnSetConvolutionMathType(void *p, int math) {
    REQUIRE(is(p, CONVOLUTION) && math >= DEFAULT_MATH && math <= FMA);
    ((Convolution *)p)->math = math;
    return SUCCESS;
}
int cudnnSetActivationDescriptor(void *p, int mode, int nan, double coefficient) {
    REQUIRE(is(p, ACTIVATION) && mode >= 0 && mode <= 6 && (nan == 0 || nan == 1) && coefficient == 0);
    ((Activation *)p)->mode = mode, ((Activation *)p)->nan = nan;
    return SUCCESS;
}

// ---- what fits together

static int problem(const Handle *h, const Tensor *x, const Tensor *w, const Convolution *d, const Tensor *y) {
    if (!is(h, HANDLE)) return refused(NOT_INITIALIZED, "no handle");
    REQUIRE((uintptr_t)h->stream == 0x5712ea);
    REQUIRE(is(x, TENSOR) && is(w, FILTER) && is(d, CONVOLUTION) && is(y, TENSOR));
    REQUIRE(x->type == w->type && x->type == y->type && d->compute == FLOAT && d->mode == CROSS_CORRELATION);
    REQUIRE(x->n == y->n && x->c == w->c && y->c == w->n);
    REQUIRE(y->h == (x->h + 2 * d->pad[0] - d->dilation[0] * (w->h - 1) - 1) / d->stride[0] + 1);
    REQUIRE(y->w == (x->w + 2 * d->pad[1] - d->dilation[1] * (w->w - 1) - 1) / d->stride[1] + 1);
    if (x->type == BFLOAT && (x->c % 8 || y->c % 8)) return refused(NOT_SUPPORTED, "channels");
    return SUCCESS;
}

enum { WANTED = 2048, GOOD = 1 };

static int offered(const Convolution *d, int type, int asked, int *count, Performance *found) {
    REQUIRE(asked >= 4 && count && found);
    int math = d->math;
    Performance all[] = {
        {7, NOT_SUPPORTED, 0.1f, 0, 1, math, {0}},
        {0, SUCCESS, 0.2f, 0, 0, math, {0}},              // not deterministic
        {2, SUCCESS, 0.3f, (size_t)1 << 40, 1, math, {0}}, // too much memory
        {3, SUCCESS, 0.4f, 0, 1, type == FLOAT && math == FMA ? TENSOR_OP : math, {0}},
        {GOOD, SUCCESS, 0.5f, WANTED, 1, math, {0}},
    };
    int first = type == FLOAT && math == FMA ? 0 : 4;  // where rounding is allowed, the last is the first
    *count = 0;
    for (int i = first; i < 5 && *count < asked; i++) found[(*count)++] = all[i];
    chosen++;
    return SUCCESS;
}
int cudnnGetConvolutionForwardAlgorithm_v7(void *h, void *x, void *w, void *d, void *y, int asked, int *count, Performance *found) {
    int status = problem(h, x, w, d, y);
    return status ? status : offered(d, ((Tensor *)x)->type, asked, count, found);
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *h, void *x, void *y, void *d, void *w, int asked, int *count, Performance *found) {
    int status = problem(h, x, w, d, y);
    return status ? status : offered(d, ((Tensor *)x)->type, asked, count, found);
}

// ---- numbers

static float rounded(float x, int dropped) {
    uint32_t bits;
    if (!dropped) return x;
    memcpy(&bits, &x, 4);
    bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
    bits &= ~((1u << dropped) - 1);
    memcpy(&x, &bits, 4);
    return x;
}
static float get(const void *p, int64_t i, int type) {
    if (type == FLOAT) return ((const float *)p)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static void put(void *p, int64_t i, int type, float x) {
    uint32_t bits;
    if (type == FLOAT) {
        ((float *)p)[i] = x;
        return;
    }
    x = rounded(x, 16);
    memcpy(&bits, &x, 4);
    ((uint16_t *)p)[i] = bits >> 16;
}
static int64_t at(const Tensor *t, int64_t n, int64_t h, int64_t w, int64_t c) { return ((n * t->h + h) * t->w + w) * t->c + c; }
static int dropped(const Convolution *d, int type) { return type == BFLOAT || d->math == FMA ? 0 : d->math == CONVERSION ? 16 : 13; }

static int ready(int algorithm, void *workspace, size_t room, const float *alpha, const float *beta) {
    REQUIRE(algorithm == GOOD);
    REQUIRE(alpha && beta && *beta == 0);
    REQUIRE(workspace && room >= WANTED);
    memset(workspace, 0xff, room);
    run++;
    return SUCCESS;
}

static int forward(const float *alpha, const Tensor *x, const void *X, const Tensor *w, const void *W, const Convolution *d, const void *bias, int relu, int nan, const Tensor *y, void *Y) {
    int cut = dropped(d, x->type);
    for (int n = 0; n < y->n; n++)
        for (int p = 0; p < y->h; p++)
            for (int q = 0; q < y->w; q++)
                for (int k = 0; k < y->c; k++) {
                    double sum = 0;
                    for (int r = 0; r < w->h; r++)
                        for (int s = 0; s < w->w; s++) {
                            int i = p * d->stride[0] + r * d->dilation[0] - d->pad[0], j = q * d->stride[1] + s * d->dilation[1] - d->pad[1];
                            if (i < 0 || j < 0 || i >= x->h || j >= x->w) continue;
                            for (int c = 0; c < w->c; c++)
                                sum += (double)rounded(get(X, at(x, n, i, j, c), x->type), cut) * rounded(get(W, at(w, k, r, s, c), x->type), cut);
                        }
                    double v = *alpha * sum + (bias ? get(bias, k, x->type) : 0);
                    put(Y, at(y, n, p, q, k), x->type, (float)(relu && !(v > 0) && !(nan && v != v) ? 0 : v));
                }
    return SUCCESS;
}

int cudnnConvolutionForward(void *h, const float *alpha, const void *x, const void *X, const void *w, const void *W, const void *d, int algorithm, void *workspace, size_t room, const float *beta, const void *y, void *Y) {
    int status = problem(h, x, w, d, y);
    if (!status) status = ready(algorithm, workspace, room, alpha, beta);
    REQUIRE(status || (X && W && Y));
    return status ? status : forward(alpha, x, X, w, W, d, 0, 0, 0, y, Y);
}

int cudnnConvolutionBiasActivationForward(void *h, const float *alpha, const void *x, const void *X, const void *w, const void *W, const void *d, int algorithm, void *workspace, size_t room, const float *alpha2, const void *z, const void *Z, const Tensor *b, const void *bias, const Activation *act, const Tensor *y, void *Y) {
    int status = problem(h, x, w, d, y);
    if (!status) status = ready(algorithm, workspace, room, alpha, alpha2);
    if (status) return status;
    REQUIRE(X && W && Y && Z && bias && is(z, TENSOR) && is(b, TENSOR) && is(act, ACTIVATION));
    REQUIRE(b->n == 1 && b->h == 1 && b->w == 1 && b->c == y->c && b->type == y->type);
    REQUIRE(act->mode == 1 || (act->mode == 5 && algorithm == 1));
    return forward(alpha, x, X, w, W, d, bias, act->mode == 1, act->nan, y, Y);
}

int cudnnConvolutionBackwardFilter(void *h, const float *alpha, const Tensor *x, const void *X, const Tensor *y, const void *G, const Convolution *d, int algorithm, void *workspace, size_t room, const float *beta, const Tensor *w, void *W) {
    int status = problem(h, x, w, d, y);
    if (!status) status = ready(algorithm, workspace, room, alpha, beta);
    if (status) return status;
    REQUIRE(X && G && W);
    int cut = dropped(d, x->type);
    for (int k = 0; k < w->n; k++)
        for (int r = 0; r < w->h; r++)
            for (int s = 0; s < w->w; s++)
                for (int c = 0; c < w->c; c++) {
                    double sum = 0;
                    for (int n = 0; n < y->n; n++)
                        for (int p = 0; p < y->h; p++)
                            for (int q = 0; q < y->w; q++) {
                                int i = p * d->stride[0] + r * d->dilation[0] - d->pad[0], j = q * d->stride[1] + s * d->dilation[1] - d->pad[1];
                                if (i < 0 || j < 0 || i >= x->h || j >= x->w) continue;
                                sum += (double)rounded(get(X, at(x, n, i, j, c), x->type), cut) * rounded(get(G, at(y, n, p, q, k), x->type), cut);
                            }
                    put(W, at(w, k, r, s, c), x->type, (float)(*alpha * sum));
                }
    return SUCCESS;
}
