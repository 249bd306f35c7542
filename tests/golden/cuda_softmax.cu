// softmax of rows
extern "C" __global__ void __launch_bounds__(256) softmax(float *__restrict__ y, const float *__restrict__ x, long long m_given, long long n_given) {
  const gn_int m = (gn_int)m_given;
  const gn_int n = (gn_int)n_given;
  extern __shared__ __align__(16) unsigned char gn_shared[];
  float *const kept = (float *)gn_shared;
  const gn_int row = blockIdx.x;
  __shared__ float partial[8];
  if (threadIdx.x < 8) {
    const gn_int t = threadIdx.x;
    float total;
    total = -__int_as_float(0x7f800000);
    for (gn_int k = 0; k < ((n + 7 * t + 7) / 8) - t; ++k) {
      const float v1 = x[n * row + 8 * k + t];
      total = total > v1 || total != total ? total : v1;
    }
    partial[t] = total;
  }
  __syncthreads();
  if (threadIdx.x < 4) {
    const gn_int u = threadIdx.x;
    const float v1 = partial[u];
    const float v2 = partial[u + 4];
    partial[u] = v1 > v2 || v1 != v1 ? v1 : v2;
  }
  __syncthreads();
  if (threadIdx.x < 2) {
    const gn_int u = threadIdx.x;
    const float v1 = partial[u];
    const float v2 = partial[u + 2];
    partial[u] = v1 > v2 || v1 != v1 ? v1 : v2;
  }
  __syncthreads();
  if (threadIdx.x < 1) {
    const gn_int u = threadIdx.x;
    const float v1 = partial[u];
    const float v2 = partial[u + 1];
    partial[u] = v1 > v2 || v1 != v1 ? v1 : v2;
  }
  __syncthreads();
  const float largest = partial[0];
  __syncthreads();
  for (gn_int j = threadIdx.x; j < n; j += 256) {
    kept[j] = expf(x[n * row + j] - largest);
  }
  __syncthreads();
  if (threadIdx.x < 8) {
    const gn_int t = threadIdx.x;
    float total;
    total = 0.0f;
    for (gn_int k = 0; k < ((n + 7 * t + 7) / 8) - t; ++k) {
      total = total + kept[8 * k + t];
    }
    partial[t] = total;
  }
  __syncthreads();
  if (threadIdx.x < 4) {
    const gn_int u = threadIdx.x;
    partial[u] = partial[u] + partial[u + 4];
  }
  __syncthreads();
  if (threadIdx.x < 2) {
    const gn_int u = threadIdx.x;
    partial[u] = partial[u] + partial[u + 2];
  }
  __syncthreads();
  if (threadIdx.x < 1) {
    const gn_int u = threadIdx.x;
    partial[u] = partial[u] + partial[u + 1];
  }
  __syncthreads();
  const float whole = partial[0];
  __syncthreads();
  for (gn_int j = threadIdx.x; j < n; j += 256) {
    y[n * row + j] = kept[j] / whole;
  }
}
