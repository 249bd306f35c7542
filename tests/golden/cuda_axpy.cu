// multiply+add
extern "C" __global__ void __launch_bounds__(256) axpy(float *__restrict__ y, const float *__restrict__ x, const float *__restrict__ a, long long n) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (long long)blockDim.x) {
    y[i] = (a[0] * x[i]) + y[i];
  }
}
