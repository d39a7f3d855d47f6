/* What must be true of batch norm: in training it normalises by the batch and its running statistics follow; in evaluation those serve,
 * and nothing moves; its gradient agrees with central differences. */
#include "gradcheck.h"
#include "nn/batch_norm.h"

enum { B = 3, T = 5, C = 4, N = B * T };
static const double eps = 1e-5, momentum = 0.1;

static mn_tensor *norm_of(mn_graph *g, mn_tensor *x, bool training, mn_scope **scope) {
  *scope = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = training}, B);
  return mn_batch_norm(*scope, "norm", x, eps, momentum);
}

static void statistics_are_of_the_batch_in_training_and_kept_in_evaluation(void) {
  for (int training = 0; training < 2; training++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s;
    mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(B, T, C)), *y = norm_of(g, x, training, &s);
    const mn_param_info *info;
    mn_tensor *const *param;
    const mn_built_buffer *buffer;
    CHECK(mn_scope_params(s, &info, &param) == 2 && !strcmp(info[0].name, "norm.weight") && !strcmp(info[1].name, "norm.bias"),
          "parameters");
    CHECK(mn_scope_buffers(s, &buffer) == 2 && !strcmp(buffer[0].info.name, "norm.running_mean"), "buffers");
    mn_tensor *leaf[5] = {x, param[0], param[1], buffer[0].leaf, buffer[1].leaf}, *out[3] = {y, buffer[0].value, buffer[1].value};
    double X[N * C], weight[C] = {1, 2, -1, 0.5}, bias[C] = {0, 1, 2, 3}, mean[C] = {0.3, -0.2, 0, 1}, var[C] = {1, 2, 0.5, 4},
                     *got[3] = {NULL};
    double *value[5] = {X, weight, bias, mean, var};
    gc_fill(X, &(gc_input){MN_F64, MN_SHAPE(B, T, C), -2, 3, false}, 1, 0);
    CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, 5, leaf, value, 3, out, got), "%s", mn_message());
    for (int c = 0; c < C && got[0]; c++) {
      double m = 0, v = 0;
      for (int i = 0; i < N; i++) m += X[i * C + c] / N;
      for (int i = 0; i < N; i++) v += (X[i * C + c] - m) * (X[i * C + c] - m) / N;
      const double use_m = training ? m : mean[c], use_v = training ? v : var[c];
      for (int i = 0; i < N; i++) {
        const double want = (X[i * C + c] - use_m) / sqrt(use_v + eps) * weight[c] + bias[c];
        CHECK(fabs(got[0][i * C + c] - want) < 1e-12, "training %d, channel %d: %g, %g", training, c, got[0][i * C + c], want);
      }
      const double next_m = training ? mean[c] + momentum * (m - mean[c]) : mean[c];
      const double next_v = training ? var[c] + momentum * (v * N / (N - 1) - var[c]) : var[c];
      CHECK(fabs(got[1][c] - next_m) < 1e-12 && fabs(got[2][c] - next_v) < 1e-12, "training %d: running statistics of channel %d", training,
            c);
    }
    for (int i = 0; i < 3; i++) free(got[i]);
    mn_graph_free(g);
  }
}

static void f_training(mn_graph *g, mn_tensor **x, mn_tensor **y) { /* x, weight, bias */
  mn_graph *own = mn_graph_new();
  mn_scope *s;
  const mn_param_info *info;
  mn_tensor *const *param;
  const mn_built_buffer *buffer;
  mn_tensor *in = mn_input(own, "x", MN_F64, x[0]->shape), *out = mn_square(own, norm_of(own, in, true, &s));
  mn_scope_params(s, &info, &param);
  mn_scope_buffers(s, &buffer);
  mn_tensor *zero = mn_full(g, MN_F64, MN_SHAPE(C), 0);
  mn_tensor *from[5] = {in, param[0], param[1], buffer[0].leaf, buffer[1].leaf}, *to[5] = {x[0], x[1], x[2], zero, zero};
  CHECK_OK(mn_graph_inline(g, 5, from, to, 1, &out, y));
  mn_graph_free(own);
}
static void gradients_agree_with_differences(void) {
  gc_case c = {"batch_norm",
               3,
               1,
               {{MN_F64, MN_SHAPE(B, T, C), -2, 3, false}, {MN_F64, MN_SHAPE(C), -1, 1, false}, {MN_F64, MN_SHAPE(C), -1, 1, false}},
               f_training};
  double e = gc_gradient_error(&c, 1, 5);
  CHECK(e < 1e-7, "%g", e);
}

int main(void) {
  RUN(statistics_are_of_the_batch_in_training_and_kept_in_evaluation);
  RUN(gradients_agree_with_differences);
  return test_end();
}
