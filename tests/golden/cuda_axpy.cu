// multiply+add
extern "C" __global__ void __launch_bounds__(256) axpy(float *__restrict__ y, const float *__restrict__ x, const float *__restrict__ a, long long n_given) {
  const gn_int n = (gn_int)n_given;
  for (gn_int i = blockIdx.x * (gn_int)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (gn_int)blockDim.x) {
    y[i] = (a[0] * x[i]) + y[i];
  }
}
