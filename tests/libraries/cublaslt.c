// A stand-in for cublasLt on the host: the functions that gnomon calls, by plain loops, in column-major order as there.
// It takes nothing on trust. Descriptors carry a mark of their kind; attributes must have the size that theirs has;
// an algorithm belongs to the problem that it was chosen for; pointers must be as aligned as was promised; leading
// dimensions, operations and epilogues must be such as cublasLt documents. What it refuses, it refuses with the status
// that cublasLt would return. Numbers are those of NVIDIA's cublasLt.h, cublas_api.h and library_types.h.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { HANDLE = 0x4c741, DESCRIPTION, LAYOUT, PREFERENCE };
enum { FLOAT = 0, BFLOAT = 14 };
enum { COMPUTE_32F = 68, FAST_16BF = 75, FAST_TF32 = 77 };
enum { DEFAULT = 1, RELU = 2, BIAS = 4, GELU = 32, AUX = 128, RELU_AUX = RELU | AUX, DRELU = 8 | AUX, DRELU_BGRAD = DRELU | 16 };

typedef struct { int mark; } Handle;
typedef struct { int mark, compute, scale; int32_t ta, tb; uint32_t epilogue; uint64_t bias, aux; int64_t aux_ld; } Description;
typedef struct { int mark, type; uint64_t rows, columns; int64_t ld; int32_t batch; int64_t stride; } Layout;
typedef struct { int mark; uint64_t room; uint32_t reductions, alignment[4]; } Preference;
typedef struct { uint64_t data[8]; } Algorithm;
typedef struct { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; } Result;

static int living, chosen, run;
int test_living(void) { return living; }
int test_chosen(void) { return chosen; }
int test_run(void) { return run; }

const char *cublasLtGetStatusName(int s) {
    return s == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : s == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_UNKNOWN";
}
const char *cublasLtGetStatusString(int s) {
    return s == INVALID_VALUE ? "an unsupported value or parameter was passed to the function" : "the requested functionality is not supported";
}

static void *made(size_t size, int mark) {
    int *p = calloc(1, size);
    *p = mark;
    living++;
    return p;
}
static int is(const void *p, int mark) { return p && *(const int *)p == mark; }
static int gone(void *p, int mark) {
    if (!is(p, mark)) return INVALID_VALUE;
    memset(p, 0, sizeof(int));
    free(p);
    living--;
    return SUCCESS;
}

int cublasLtCreate(void **h) { *h = made(sizeof(Handle), HANDLE); return SUCCESS; }
int cublasLtDestroy(void *h) { return gone(h, HANDLE); }

int cublasLtMatmulDescCreate(void **d, int compute, int scale) {
    Description *p = *d = made(sizeof(Description), DESCRIPTION);
    p->compute = compute, p->scale = scale, p->epilogue = DEFAULT;
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(void *d) { return gone(d, DESCRIPTION); }
int cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *value, size_t size) {
    Description *p = d;
    if (!is(d, DESCRIPTION) || !value || size != (attribute == 8 || attribute == 11 || attribute == 12 ? 8 : 4)) return INVALID_VALUE;
    switch (attribute) {
        case 11: memcpy(&p->aux, value, 8); break;
        case 12: memcpy(&p->aux_ld, value, 8); break;
        case 3: memcpy(&p->ta, value, 4); break;
        case 4: memcpy(&p->tb, value, 4); break;
        case 7: memcpy(&p->epilogue, value, 4); break;
        case 8: memcpy(&p->bias, value, 8); break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

int cublasLtMatrixLayoutCreate(void **l, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    Layout *p = *l = made(sizeof(Layout), LAYOUT);
    p->type = type, p->rows = rows, p->columns = columns, p->ld = ld, p->batch = 1;
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *l) { return gone(l, LAYOUT); }
int cublasLtMatrixLayoutSetAttribute(void *l, int attribute, const void *value, size_t size) {
    Layout *p = l;
    if (!is(l, LAYOUT) || !value || size != (attribute == 6 ? 8 : 4)) return INVALID_VALUE;
    switch (attribute) {
        case 5: memcpy(&p->batch, value, 4); break;
        case 6: memcpy(&p->stride, value, 8); break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

int cublasLtMatmulPreferenceCreate(void **l) {
    Preference *p = *l = made(sizeof(Preference), PREFERENCE);
    p->reductions = 7;
    for (int i = 0; i < 4; i++) p->alignment[i] = 256;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(void *p) { return gone(p, PREFERENCE); }
int cublasLtMatmulPreferenceSetAttribute(void *l, int attribute, const void *value, size_t size) {
    Preference *p = l;
    if (!is(l, PREFERENCE) || !value || size != (attribute == 1 ? 8 : 4)) return INVALID_VALUE;
    switch (attribute) {
        case 1: memcpy(&p->room, value, 8); break;
        case 3: memcpy(&p->reductions, value, 4); break;
        case 5: case 6: case 7: case 8: memcpy(&p->alignment[attribute - 5], value, 4); break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

// ---- what fits together

static int sized(const Layout *l, uint64_t rows, uint64_t columns) {
    return l->rows == rows && l->columns == columns && rows && columns && l->ld >= (int64_t)rows;
}

static int problem(const Description *d, const Layout *a, const Layout *b, const Layout *c, const Layout *e) {
    if (!is(d, DESCRIPTION) || !is(a, LAYOUT) || !is(b, LAYOUT) || !is(c, LAYOUT) || !is(e, LAYOUT)) return INVALID_VALUE;
    if ((d->ta | d->tb) & ~1) return INVALID_VALUE;
    uint64_t m = e->rows, n = e->columns, k = d->ta ? a->rows : a->columns;
    if (!sized(e, m, n) || !sized(c, m, n) || !sized(a, d->ta ? k : m, d->ta ? m : k) || !sized(b, d->tb ? n : k, d->tb ? k : n)) return INVALID_VALUE;
    if (a->type != b->type || c->type != e->type || a->type != e->type || (a->type != FLOAT && a->type != BFLOAT)) return NOT_SUPPORTED;
    if (d->scale != FLOAT || (d->compute != COMPUTE_32F && d->compute != FAST_16BF && d->compute != FAST_TF32)) return NOT_SUPPORTED;
    if (a->type == BFLOAT && d->compute != COMPUTE_32F) return NOT_SUPPORTED;
    if (a->batch < 1 || a->batch != b->batch || a->batch != c->batch || a->batch != e->batch) return INVALID_VALUE;
    if (e->batch > 1 && e->stride < (int64_t)((n - 1) * e->ld + m)) return INVALID_VALUE;  // results would overlap
    uint32_t kind = d->epilogue & ~(uint32_t)BIAS;
    if (kind != 0 && kind != DEFAULT && kind != RELU && kind != GELU && kind != RELU_AUX && kind != DRELU && kind != DRELU_BGRAD) return NOT_SUPPORTED;
    if (d->epilogue == (DEFAULT | BIAS) || d->epilogue == 0) return INVALID_VALUE;
    if (d->epilogue == (DRELU | BIAS) || d->epilogue == (DRELU_BGRAD | BIAS)) return INVALID_VALUE;
    if (d->epilogue & AUX && (!d->aux || d->aux % 16 || d->aux_ld % 128 || d->aux_ld < (int64_t)m || e->batch != 1)) return INVALID_VALUE;
    if (!(d->epilogue & BIAS) && d->epilogue != DRELU_BGRAD && d->bias) return INVALID_VALUE;
    if ((d->epilogue & BIAS || d->epilogue == DRELU_BGRAD) && !d->bias) return INVALID_VALUE;
    if (d->bias % (a->type == FLOAT ? 4 : 2)) return INVALID_VALUE;
    return SUCCESS;
}

static uint64_t mixed(uint64_t h, uint64_t x) { return (h ^ x) * 0x9e3779b97f4a7c15ull + (h >> 29); }
static uint64_t digest(const Description *d, const Layout *a, const Layout *b, const Layout *c, const Layout *e) {
    uint64_t h = mixed(mixed(mixed(mixed(mixed(1, d->compute), d->ta), d->tb), d->epilogue), d->aux_ld);
    const Layout *all[] = {a, b, c, e};
    for (int i = 0; i < 4; i++) {
        const Layout *l = all[i];
        h = mixed(mixed(mixed(mixed(mixed(h, l->rows), l->columns), l->ld), l->batch), l->batch > 1 ? l->stride : 0);
    }
    return h;
}

enum { WANTED = 4096 };  // bytes of workspace that an algorithm takes if it may

int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *p, int asked, Result *found, int *count) {
    const Preference *preference = p;
    *count = 0;
    if (!is(h, HANDLE)) return NOT_INITIALIZED;
    if (asked < 1 || !is(p, PREFERENCE)) return INVALID_VALUE;
    int status = problem(d, a, b, c, e);
    if (status) return status;
    for (int i = 0; i < 4; i++) {
        uint32_t n = preference->alignment[i];
        if (n < 1 || n > 256 || n & (n - 1)) return INVALID_VALUE;
    }
    if (preference->reductions & 1) return NOT_SUPPORTED;  // gnomon wants sums in a fixed order
    memset(found, 0, sizeof *found);
    found->workspace = preference->room >= WANTED ? WANTED : 0;
    found->algorithm.data[0] = digest(d, a, b, c, e);
    found->algorithm.data[1] = found->workspace;
    for (int i = 0; i < 4; i++) found->algorithm.data[2 + i] = preference->alignment[i];
    *count = 1;
    chosen++;
    return SUCCESS;
}

// ---- numbers

static float widened(const void *p, int64_t i, int type) {
    if (type == FLOAT) return ((const float *)p)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static float rounded(float x, int dropped) {  // to nearest, ties to even; finite numbers
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
    bits &= ~((1u << dropped) - 1);
    memcpy(&x, &bits, 4);
    return x;
}
static void put(void *p, int64_t i, int type, float x) {
    if (type == FLOAT) {
        ((float *)p)[i] = x;
        return;
    }
    uint32_t bits;
    x = rounded(x, 16);
    memcpy(&bits, &x, 4);
    ((uint16_t *)p)[i] = bits >> 16;
}

int cublasLtMatmul(void *h, void *dd, const float *alpha, const void *A, void *la, const void *B, void *lb, const float *beta, const void *C, void *lc, void *D, void *ld, const Algorithm *algorithm, void *workspace, size_t room, void *stream) {
    const Description *d = dd;
    const Layout *a = la, *b = lb, *c = lc, *e = ld;
    if (!is(h, HANDLE)) return NOT_INITIALIZED;
    int status = problem(d, a, b, c, e);
    if (status) return status;
    if (!alpha || !beta || !A || !B || !D || !algorithm || (*beta != 0 && !C) || (uintptr_t)stream != 0x5712ea) return INVALID_VALUE;
    if (algorithm->data[0] != digest(d, a, b, c, e) || room < algorithm->data[1]) return INVALID_VALUE;
    if (C == D && memcmp(c, e, sizeof *c)) return INVALID_VALUE;
    const void *all[] = {A, B, C, D};
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)all[i] % algorithm->data[2 + i]) return INVALID_VALUE;
    if (algorithm->data[1]) memset(workspace, 0xff, room);  // it is the product's own
    int dropped = d->compute == FAST_TF32 ? 13 : d->compute == FAST_16BF ? 16 : 0;
    int64_t m = e->rows, n = e->columns, k = d->ta ? a->rows : a->columns;
    double *sums = calloc(m, sizeof(double));
    uint8_t *aux = (uint8_t *)d->aux;
    for (int64_t batch = 0; batch < e->batch; batch++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++) {
                    float x = widened(A, batch * a->stride + (d->ta ? i * a->ld + l : l * a->ld + i), a->type);
                    float y = widened(B, batch * b->stride + (d->tb ? l * b->ld + j : j * b->ld + l), b->type);
                    sum += dropped ? (double)rounded(x, dropped) * rounded(y, dropped) : (double)x * y;
                }
                double r = *alpha * sum;
                if (*beta != 0) r += *beta * widened(C, batch * c->stride + j * c->ld + i, c->type);
                if (d->epilogue & BIAS) r += widened((const void *)d->bias, i, e->type);
                int64_t bit = j * d->aux_ld + i;
                if (d->epilogue & RELU) {
                    if (d->epilogue & AUX) aux[bit / 8] = (aux[bit / 8] & ~(1 << bit % 8)) | (r > 0) << bit % 8;
                    r = r > 0 ? r : 0;
                } else if (d->epilogue & AUX) {
                    r = aux[bit / 8] >> bit % 8 & 1 ? r : 0;
                    sums[i] += r;
                }
                if (d->epilogue & GELU) r = r / 2 * (1 + tanh(0.7978845608028654 * (r + 0.044715 * r * r * r)));
                put(D, batch * e->stride + j * e->ld + i, e->type, (float)r);
            }
    if (d->epilogue == DRELU_BGRAD)
        for (int64_t i = 0; i < m; i++) put((void *)d->bias, i, e->type, (float)sums[i]);
    free(sums);
    run++;
    return SUCCESS;
}
