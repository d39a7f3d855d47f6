/* inspect_synapses.c - how synapses behave while a text is read: of each head how much is written (rho) and how evenly, how fast it fades
 * (delta), and how large P becomes beside what homeostasis allows.
 *
 * The text is read as one stream from its beginning, three times: once for each of the reports rho_heads, P_norm and P_full, all [1,T,H].
 * The other numbers are the model's parameters beside them. */
#include "cli/inspect_synapses.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/bundle.h"
#include "run/program.h"
#include "run/text_tokens.h"

enum { TENTHS = 10, MOST_LAYERS = 4096 };
static const char rho_heads[] = "rho_heads";
static const double idle = 0.02; /* rho that varies less does nothing that a constant would not */

typedef struct reading {
  mn_cli *cli;
  mn_bundle bundle;
  mn_program *program;
  int64_t T;
  int32_t *ids;
  int layers;
  struct told { /* of a layer: [T,H] each */
    char *path;
    int64_t H;
    float *rho, *norm, *full;
  } * layer;
} reading;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const reading *x = ctx;
  mn_model_io in = {0}, out = {0};
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_model_build(s, x->bundle.model, &in, &out);
  return mn_graph_status(mn_scope_graph(s));
}

/* ---- reading ---- */
static mn_status read_tokens(reading *x, const char *path) {
  mn_text_tokens *text;
  int64_t got = 1, n = 0;
  x->ids = mn_alloc((size_t)x->T * sizeof *x->ids);
  if (!x->ids) return MN_ERR_MEMORY;
  MN_TRY(mn_text_tokens_open(path, x->bundle.tokenizer, &text));
  mn_status status = MN_OK;
  for (; status == MN_OK && got > 0 && n < x->T; n += got) status = mn_text_tokens_next(text, x->T - n, x->ids + n, &got);
  mn_text_tokens_close(text);
  if (status == MN_OK && !n) status = mn_fail(MN_ERR_CONFIG, "%s has no text in it", path);
  x->T = n;
  return status;
}

static mn_status take(reading *x, mn_routine *r, int result, float **out) {
  const mn_shape *shape = mn_routine_result_shape(r, result);
  if (shape->ndim != 3 || shape->dim[1] != x->T)
    return mn_fail(MN_ERR_CONFIG, "%s is no number for each head", mn_routine_result_name(r, result));
  *out = mn_alloc((size_t)(x->T * shape->dim[2]) * sizeof **out);
  return *out ? mn_routine_get_all(r, result, *out) : MN_ERR_MEMORY;
}

/* Every layer's report of that name; which: 0 rho, 1 norm, 2 full. */
static mn_status listen(reading *x, mn_routine *r, int which) {
  const int n = mn_routine_reports(r), first = mn_routine_results(r) - n;
  if (!which) {
    if (!n || n > MOST_LAYERS)
      return mn_fail(MN_ERR_CONFIG,
                     "--synapses: nothing in %s changes while it reads; it is for models with mixers of type synaptic, and of a mode that "
                     "writes (mneme graft puts them around a trained model)",
                     x->cli->args[0]);
    x->layer = mn_calloc((size_t)n, sizeof *x->layer);
    if (!x->layer) return MN_ERR_MEMORY;
    x->layers = n;
  }
  MN_TRY(mn_routine_put(r, mn_routine_feed(r, "tokens"), x->ids));
  MN_TRY(mn_routine_run(r, NULL));
  for (int i = 0; i < n; i++) {
    struct told *l = &x->layer[i];
    if (!which) {
      l->H = mn_routine_result_shape(r, first + i)->dim[2];
      l->path = mn_strdup(mn_routine_result_name(r, first + i));
      if (!l->path) return MN_ERR_MEMORY;
      l->path[strlen(l->path) - strlen(rho_heads) - 1] = 0;
    }
    MN_TRY(take(x, r, first + i, which == 0 ? &l->rho : which == 1 ? &l->norm : &l->full));
  }
  return MN_OK;
}

static mn_status read_all(reading *x) {
  static const char *const reports[] = {rho_heads, "P_norm", "P_full"};
  const mn_program_config config = {.backend = x->bundle.backend,
                                    .params = x->bundle.params,
                                    .build = {.param = x->bundle.params->dtype, .compute = MN_F32},
                                    .builder = build,
                                    .ctx = x,
                                    .settled = true};
  mn_routine *r;
  MN_TRY(mn_program_new(&config, &x->program));
  for (int i = 0; i < 3; i++) {
    MN_TRY(mn_program_enter(x->program, &(mn_form){.batch = 1, .length = x->T, .report = reports[i]}, &r));
    const mn_status status = listen(x, r, i);
    mn_program_leave(x->program);
    MN_TRY(status);
    MN_TRY(mn_stop_check("reading the text"));
  }
  return MN_OK;
}

/* ---- what is said of a head ---- */
typedef struct head {
  double mean, std, tenth[TENTHS], norm, full, clipped; /* parts of the tokens; |P|_F at the end; the largest of P_full */
  double delta, mu, beta_res, beta_rel;                 /* NAN: the mode has none */
} head;

/* Head h of a layer's parameter [H]. */
static mn_status parameter(const reading *x, const struct told *l, const char *name, int64_t h, double *out) {
  mn_text full = {0};
  mn_text_addf(&full, "%s.%s", l->path, name);
  mn_status status = mn_text_status(&full);
  const int i = status == MN_OK ? mn_params_find(x->bundle.params, full.data) : -1;
  mn_text_free(&full);
  *out = (double)NAN;
  if (i < 0) return status;
  void *host;
  MN_TRY(mn_params_on_host(x->bundle.params, i, &host));
  *out = (double)((const float *)host)[h];
  free(host);
  return MN_OK;
}
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static mn_status look(const reading *x, const struct told *l, int64_t h, head *out) {
  const double T = (double)x->T;
  double sum = 0, squares = 0;
  *out = (head){0};
  for (int64_t t = 0; t < x->T; t++) {
    const double rho = (double)l->rho[t * l->H + h], full = (double)l->full[t * l->H + h];
    const int tenth = isfinite(rho) ? (int)(rho * TENTHS) : 0; /* what is no number shows in the mean */
    sum += rho, squares += rho * rho;
    out->tenth[tenth < 0 ? 0 : tenth >= TENTHS ? TENTHS - 1 : tenth] += 1 / T;
    out->full = fmax(out->full, full);
    out->clipped += full > 1 ? 1 / T : 0;
  }
  out->mean = sum / T;
  out->std = sqrt(fmax(0, squares / T - out->mean * out->mean));
  out->norm = (double)l->norm[(x->T - 1) * l->H + h];
  MN_TRY(parameter(x, l, "delta_logit", h, &out->delta));
  MN_TRY(parameter(x, l, "mu_logit", h, &out->mu));
  MN_TRY(parameter(x, l, "beta_res", h, &out->beta_res));
  MN_TRY(parameter(x, l, "beta_rel", h, &out->beta_rel));
  out->delta = sigmoid(out->delta), out->mu = sigmoid(out->mu);
  return MN_OK;
}

static json_t *head_json(const head *a) {
  json_t *tenths = json_array();
  for (int i = 0; i < TENTHS; i++) json_array_append_new(tenths, json_real(a->tenth[i]));
  return json_pack("{s:f, s:f, s:o, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "rho_mean", a->mean, "rho_std", a->std, "rho_tenths", tenths,
                   "norm", a->norm, "largest_over_most", a->full, "clipped", a->clipped, "delta", mn_cli_number(a->delta), "mu",
                   mn_cli_number(a->mu), "beta_res", mn_cli_number(a->beta_res), "beta_rel", mn_cli_number(a->beta_rel));
}

static void print_number(double x) {
  if (isfinite(x)) mn_print(" %8.3f", x);
  else mn_print("        -");
}
static void print_head(const struct told *l, int64_t h, const head *a) {
  mn_print("%-30s %4lld %8.3f %6.3f ", h ? "" : l->path, (long long)h, a->mean, a->std);
  for (int i = 0; i < TENTHS; i++) mn_print(" %3.0f", 100 * a->tenth[i]);
  print_number(a->delta), print_number(a->mu), print_number(a->beta_res), print_number(a->beta_rel);
  mn_print(" %8.3f %8.3f %8.3f%s\n", a->norm, a->full, a->clipped, a->std < idle ? "  idle" : "");
}

static mn_status say(reading *x) {
  json_t *list = json_array();
  mn_status status = list ? MN_OK : MN_ERR_MEMORY;
  if (!x->cli->json) {
    mn_print("synapses over the first %lld tokens of %s\n", (long long)x->T, mn_cli_get(x->cli, "synapses"));
    mn_print("%-30s %4s %8s %6s  %-39s %8s %8s %8s %8s %8s %8s %8s\n", "synapses", "head", "rho", "std", "rho in tenths, per cent", "delta",
             "mu", "beta_res", "beta_rel", "|P|", "largest", "clipped");
  }
  for (int i = 0; i < x->layers && status == MN_OK; i++) {
    json_t *heads = json_array();
    for (int64_t h = 0; h < x->layer[i].H && status == MN_OK; h++) {
      head a;
      status = look(x, &x->layer[i], h, &a);
      if (status == MN_OK && !x->cli->json) print_head(&x->layer[i], h, &a);
      if (status == MN_OK) json_array_append_new(heads, head_json(&a));
    }
    json_array_append_new(list, json_pack("{s:s, s:o}", "path", x->layer[i].path, "heads", heads));
  }
  if (status == MN_OK && x->cli->json) return mn_cli_json(x->cli, json_pack("{s:I, s:o}", "tokens", (json_int_t)x->T, "synapses", list));
  json_decref(list);
  return status;
}

static mn_status prepare(reading *x, const char *path) {
  const char *model = x->cli->args[0];
  MN_TRY(mn_bundle_open(model, x->cli->backend, x->cli->threads, &x->bundle));
  MN_TRY(mn_bundle_need_tokenizer(&x->bundle, model));
  return read_tokens(x, path);
}

mn_status mn_inspect_synapses(mn_cli *cli, int64_t tokens) {
  reading x = {.cli = cli, .T = tokens};
  mn_status status = prepare(&x, mn_cli_get(cli, "synapses"));
  if (status == MN_OK) status = read_all(&x);
  if (status == MN_OK) status = say(&x);
  for (int i = 0; i < x.layers; i++) free(x.layer[i].path), free(x.layer[i].rho), free(x.layer[i].norm), free(x.layer[i].full);
  free(x.layer);
  free(x.ids);
  mn_program_free(x.program);
  mn_bundle_close(&x.bundle);
  return status;
}
