/* What must be true of who owns a parameter: declaring takes no memory; an opened model's weights are the bytes of its file wherever
 * type and alignment allow, and a file that changes under it is refused; a shared tensor is one tensor in two sets; what is mapped or
 * shared is not written. Memory is counted where the backend gives it. */
#define _GNU_SOURCE
#include <unistd.h>

#include "base/file.h"
#include "run/session.h"

#include "model_fixture.h"
#include "scratch.h"

enum { D = 4 };
#define IN(name) "params-owner-" name

/* ---- memory that is counted ---- */
static size_t held;

static void *(*plain_alloc)(mn_backend *b, size_t bytes);
static void (*plain_free)(mn_backend *b, void *p, size_t bytes);

static void *counted_alloc(mn_backend *b, size_t bytes) {
  held += bytes;
  return plain_alloc(b, bytes);
}

static void counted_free(mn_backend *b, void *p, size_t bytes) {
  if (p) held -= bytes;
  plain_free(b, p, bytes);
}

/* The reference backend, whose memory is counted. */
static mn_backend counting(bool on_host) {
  mn_backend b = *mn_backend_ref();
  plain_alloc = b.alloc;
  plain_free = b.free;
  b.alloc = counted_alloc;
  b.free = counted_free;
  b.on_host = on_host;
  held = 0;
  return b;
}

static size_t bytes_of(const mn_params *p) {
  size_t n = 0;
  for (int i = 0; i < p->n_all; i++) n += mn_params_bytes(p, i);
  return n;
}

/* ---- a set of five tensors ---- y = w x + bias + gain + the mean so far, which moves in training */
typedef struct net {
  mn_graph *g;
  mn_scope *s;
  mn_tensor *x, *y;
  mn_params *p;
} net;

static net declare(mn_backend *b, mn_dtype type, bool training) {
  net n = {.g = mn_graph_new()};
  n.s = mn_scope_new(n.g, (mn_build){.param = type, .compute = MN_F32, .training = training}, 1);
  n.x = mn_input(n.g, "x", MN_F32, MN_SHAPE(D));
  mn_tensor *w = mn_param(n.s, "weight", MN_SHAPE(D), MN_NORMAL(1), 0, "weight");
  mn_tensor *bias = mn_param(n.s, "bias", MN_SHAPE(D), MN_NORMAL(1), 0, "bias");
  mn_tensor *gain = mn_param(n.s, "gain", MN_SHAPE(D), MN_NORMAL(1), 0, "gain");
  mn_tensor *mean = mn_model_buffer(n.s, "mean", MN_F32, MN_SHAPE(D), 0.5, "running mean");
  mn_tensor *seen = mn_model_buffer(n.s, "seen", MN_I64, MN_SHAPE(1), 3, "batches");
  mn_model_buffer_set(n.s, "mean", mn_mul_scalar(n.g, mn_add(n.g, mean, n.x), 0.5));
  mn_model_buffer_set(n.s, "seen", mn_add_scalar(n.g, seen, 1));
  n.y = mn_add(n.g, mn_mul(n.g, mn_cast(n.g, w, MN_F32), n.x), mn_cast(n.g, mn_add(n.g, bias, gain), MN_F32));
  n.y = mn_add(n.g, n.y, mean);
  CHECK_OK(mn_graph_status(n.g));
  CHECK_OK(mn_params_declare_scope(n.s, b, type, &n.p));
  return n;
}

static void end(net *n) {
  mn_params_free(n->p);
  mn_graph_free(n->g);
}

/* One run: y, and in training the buffers are assigned. The status of binding. */
static mn_status run(const net *n, float y[D]) {
  const mn_built_buffer *buffers;
  mn_tensor *variables[8], *values[8], *y_out = n->y;
  int k = 0;
  for (int i = 0, m = mn_scope_buffers(n->s, &buffers); i < m; i++)
    if (buffers[i].value != buffers[i].leaf) variables[k] = buffers[i].leaf, values[k++] = buffers[i].value;
  mn_plan_request q = {.graph = n->g, .n_outputs = 1, .outputs = &y_out, .n_assigns = k, .variables = variables, .values = values};
  q.backend = n->p->backend;
  mn_plan *plan = NULL;
  CHECK_OK(mn_plan_compile(&q, &plan));
  mn_status status = mn_params_bind(n->p, n->s, plan);
  float x[D] = {1, 2, 3, 4};
  mn_plan_bind(plan, n->x, x);
  if (status == MN_OK) {
    CHECK_OK(mn_plan_run(plan));
    memcpy(y, mn_plan_output(plan, 0)->data, D * sizeof *y);
  }
  mn_plan_free(plan);
  return status;
}

static float *values(const mn_params *p, const char *name) { return p->data[mn_params_find(p, name)]; }
static mn_param_owner owner(const mn_params *p, const char *name) { return p->owner[mn_params_find(p, name)]; }

/* ---- memory comes when it is needed ---- */
static void declaring_takes_no_memory(void) {
  mn_backend b = counting(true);
  float y[D];
  net n = declare(&b, MN_F32, false);
  CHECK(held == 0 && owner(n.p, "weight") == MN_PARAM_EMPTY, "%zu bytes for what nobody has filled", held);
  void *host;
  CHECK(mn_params_on_host(n.p, 0, &host) == MN_ERR_ARG && strstr(mn_message(), "weight"), "%s", mn_message());
  CHECK(mn_params_save(n.p, IN("empty.safetensors")) == MN_ERR_ARG && strstr(mn_message(), "weight"), "%s", mn_message());
  CHECK_OK(mn_params_draw(n.p, 1));
  CHECK(held == bytes_of(n.p) && owner(n.p, "weight") == MN_PARAM_ALLOCATED, "%zu bytes of %zu", held, bytes_of(n.p));
  CHECK_OK(mn_params_save(n.p, IN("five.safetensors")));
  end(&n);
  CHECK(held == 0, "%zu bytes are left", held);
  n = declare(&b, MN_F32, false);
  CHECK_OK(run(&n, y)); /* values come later, as when a training goes on */
  const size_t bound = held;
  CHECK(bound == bytes_of(n.p) - sizeof(int64_t) || bound == bytes_of(n.p), "bound: %zu bytes of %zu", bound, bytes_of(n.p));
  const void *at = values(n.p, "weight");
  CHECK_OK(mn_params_load(n.p, IN("five.safetensors")));
  CHECK(values(n.p, "weight") == at && held == bytes_of(n.p), "what is bound stays where it is: %zu", held);
  end(&n);
  CHECK(held == 0, "%zu bytes are left", held);
}

/* ---- mapped ---- */
static const char model_text[] =
    "{vocab_size: 40, d_model: 16, layers: 2, tie_embeddings: false, block: {mixer: {type: gated_deltanet, heads: 2}, hidden: 32}}";

/* The logits after 24 tokens. */
static mn_status stream(const mn_model *m, const mn_params *p, float logits[40]) {
  mn_session *s = NULL;
  int32_t tokens[24];
  const float *last = NULL;
  for (int i = 0; i < 24; i++) tokens[i] = i * 7 % 40;
  mn_status status = mn_session_new(m, p, &(mn_session_config){0}, &s);
  if (status == MN_OK) status = mn_session_feed(s, tokens, 24, &last);
  if (status == MN_OK) memcpy(logits, last, 40 * sizeof *logits);
  mn_session_free(s);
  return status;
}

static void an_opened_model_takes_no_memory(void) {
  fixture f;
  const char *dir = IN("model");
  if (!fixture_open(&f, 5, "%s", model_text)) return;
  CHECK_OK(mn_model_save_dir(f.model, f.params, dir));
  float drawn[40] = {0}, opened[40] = {1};
  CHECK_OK(stream(f.model, f.params, drawn));
  plain_alloc = f.backend->alloc;
  plain_free = f.backend->free;
  f.backend->alloc = counted_alloc;
  f.backend->free = counted_free;
  for (int mapped = 0; mapped < 2; mapped++) {
    mn_model *m = NULL;
    mn_params *p = NULL;
    char a[33] = "", b[33] = "";
    held = 0;
    CHECK_OK((mapped ? mn_model_open_dir : mn_model_load_dir)(dir, f.backend, MN_F32, &m, &p));
    if (!p) continue;
    CHECK(held == (mapped ? 0 : bytes_of(p)), "mapped %d: %zu bytes beside the file's %zu", mapped, held, bytes_of(p));
    for (int i = 0; i < p->n_all; i++)
      CHECK(p->owner[i] == (mapped ? MN_PARAM_MAPPED : MN_PARAM_ALLOCATED) && !memcmp(p->data[i], f.params->data[i], mn_params_bytes(p, i)),
            "%s", p->info[i].name);
    CHECK(!mapped || (uintptr_t)p->data[0] % 64 == 0, "a file of ours begins where wide vectors do");
    CHECK_OK(stream(m, p, opened));
    CHECK(!memcmp(opened, drawn, sizeof drawn), "mapped %d: the same logits", mapped);
    CHECK_OK(mn_model_fingerprint(f.model, f.params, a));
    CHECK_OK(mn_model_fingerprint(m, p, b));
    CHECK(!strcmp(a, b), "%s and %s", a, b);
    mn_params_free(p);
    mn_model_free(m);
    CHECK(held == 0, "%zu bytes are left", held);
  }
  f.backend->alloc = plain_alloc;
  f.backend->free = plain_free;
  fixture_close(&f);
}

/* A file as another program may write it: float types mixed, data at `shift` bytes from a multiple of 8. */
static void write_mixed(const char *path, int shift) {
  static const float weight[D] = {1, -2, 0.5f, 3}, mean[D] = {7, 8, 9, 10};
  static const uint16_t bias[D] = {0x3F80, 0x4000, 0xBF80, 0x3F00},
                        gain[D] = {0x3C00, 0xC000, 0x3800, 0x4200}; /* BF16: 1 2 -1 .5; F16: 1 -2 .5 3 */
  static const int64_t seen = 12;
  char file[1024] = {0}, *header = file + 8;
  snprintf(
      header, 900,
      "{\"seen\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},\"weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]},"
      "\"mean\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[24,40]},\"bias\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[40,48]},"
      "\"gain\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[48,56]}}");
  size_t n = strlen(header);
  while ((int)(n % 8) != shift) header[n++] = ' ';
  for (int i = 0; i < 8; i++) file[i] = (char)(n >> 8 * i);
  char *data = header + n;
  memcpy(data, &seen, 8);
  memcpy(data + 8, weight, 16);
  memcpy(data + 24, mean, 16);
  memcpy(data + 40, bias, 8);
  memcpy(data + 48, gain, 8);
  CHECK_OK(mn_file_write(path, file, 8 + n + 56));
}

static void types_and_alignment_decide_what_is_mapped(void) {
  static const struct {
    mn_dtype type;
    int shift;
    bool on_host;
    mn_param_owner weight, bias, gain, mean, seen;
  } cases[] = {
#define M MN_PARAM_MAPPED
#define A MN_PARAM_ALLOCATED
      {MN_F32, 0, true, M, A, A, M, M},  {MN_BF16, 0, true, A, M, A, M, M}, {MN_F32, 4, true, M, A, A, M, A},
      {MN_BF16, 2, true, A, M, A, A, A}, {MN_F32, 1, true, A, A, A, A, A},  {MN_F32, 0, false, A, A, A, A, A},
#undef M
#undef A
  };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mn_backend b = counting(cases[k].on_host);
    net n = declare(&b, cases[k].type, false);
    write_mixed(IN("mixed.safetensors"), cases[k].shift);
    CHECK_OK(mn_params_map(n.p, IN("mixed.safetensors")));
    CHECK(owner(n.p, "weight") == cases[k].weight && owner(n.p, "bias") == cases[k].bias && owner(n.p, "gain") == cases[k].gain &&
              owner(n.p, "mean") == cases[k].mean && owner(n.p, "seen") == cases[k].seen,
          "case %zu: %d %d %d %d %d", k, owner(n.p, "weight"), owner(n.p, "bias"), owner(n.p, "gain"), owner(n.p, "mean"),
          owner(n.p, "seen"));
    size_t copied = 0;
    for (int i = 0; i < n.p->n_all; i++) copied += n.p->owner[i] == MN_PARAM_ALLOCATED ? mn_params_bytes(n.p, i) : 0;
    CHECK(held == copied, "case %zu: %zu bytes, not %zu", k, held, copied);
    float y[D] = {0};
    CHECK_OK(run(&n, y)); /* w x + bias + gain + mean */
    CHECK(y[0] == 1 + 1 + 1 + 7 && y[1] == -4 + 2 - 2 + 8 && y[2] == 1.5f - 1 + 0.5f + 9 && y[3] == 12 + 0.5f + 3 + 10,
          "case %zu: %g %g %g %g", k, (double)y[0], (double)y[1], (double)y[2], (double)y[3]);
    CHECK(*(int64_t *)n.p->data[mn_params_find(n.p, "seen")] == 12, "case %zu: the number", k);
    end(&n);
    CHECK(held == 0, "%zu bytes are left", held);
  }
}

/* Damage, and values that are no numbers, are found when the file is mapped; a refused set is empty as it was. */
static void what_is_wrong_with_a_file_is_said_when_it_is_mapped(void) {
  const char *path = IN("wrong.safetensors");
  mn_backend b = counting(true);
  net n = declare(&b, MN_F32, false), to = declare(&b, MN_F32, false);
  char *bytes;
  size_t size;
  CHECK_OK(mn_params_draw(n.p, 3));
  CHECK_OK(mn_params_save(n.p, path));
  CHECK_OK(mn_file_read(path, 1 << 20, &bytes, &size));
  const size_t before = held;
  for (size_t k = 1; k <= 5; k++) { /* one bit in each of the tensors */
    bytes[size + 8 - 16 * k] ^= 1;
    CHECK_OK(mn_file_write(path, bytes, size));
    CHECK(mn_params_map(to.p, path) == MN_ERR_FORMAT && strstr(mn_message(), "checksum"), "%s", mn_message());
    CHECK(owner(to.p, "weight") == MN_PARAM_EMPTY && held == before, "a refused file leaves nothing");
    bytes[size + 8 - 16 * k] ^= 1;
  }
  CHECK_OK(mn_file_write(path, bytes, size - 4));
  CHECK(mn_params_map(to.p, path) == MN_ERR_FORMAT, "a file that is cut: %s", mn_message());
  values(n.p, "gain")[2] = NAN;
  CHECK_OK(mn_params_save(n.p, path));
  CHECK(mn_params_map(to.p, path) == MN_ERR_NUMERIC && strstr(mn_message(), "'gain'") && strstr(mn_message(), "element 2"), "%s",
        mn_message());
  CHECK_OK(mn_file_write(path, bytes, size));
  CHECK_OK(mn_params_map(to.p, path));
  CHECK(mn_params_map(to.p, path) == MN_ERR_ARG && strstr(mn_message(), "weight"), "a second file: %s", mn_message());
  free(bytes);
  end(&to);
  end(&n);
}

/* A file that is cut, or written to, while its model runs ends what runs by a message; one that is replaced whole does not. */
static void a_file_that_changes_under_its_model(void) {
  fixture f;
  const char *dir = IN("changing"), *weights = IN("changing/model.safetensors");
  if (!fixture_open(&f, 5, "%s", model_text)) return;
  for (int how = 0; how < 4; how++) { /* replaced; cut to nothing; cut in its last page; one byte written */
    mn_model *m = NULL;
    mn_params *p = NULL;
    char *bytes = NULL, hex[33];
    size_t size = 0;
    float before[40] = {0}, after[40] = {1};
    CHECK_OK(mn_model_save_dir(f.model, f.params, dir));
    CHECK_OK(mn_file_read(weights, 1 << 24, &bytes, &size));
    CHECK_OK(mn_model_open_dir(dir, f.backend, MN_F32, &m, &p));
    if (!p) return;
    CHECK_OK(stream(m, p, before));
    if (how == 0) CHECK_OK(mn_file_write(weights, "another", 7));
    if (how == 1) CHECK(truncate(weights, 0) == 0, "cut");
    if (how == 2) CHECK(truncate(weights, (off_t)size - 4) == 0, "cut");
    if (how == 3) {
      usleep(50000); /* file systems count time in ticks */
      FILE *file = fopen(weights, "r+b");
      CHECK(file && fseek(file, -3, SEEK_END) == 0 && fputc(0x55, file) == 0x55 && fclose(file) == 0, "written");
    }
    for (int again = 0; again < 2; again++) { /* what is put back later was not there */
      mn_status status = stream(m, p, after);
      if (how == 0) CHECK(status == MN_OK && !memcmp(before, after, sizeof after), "replaced whole, it goes on: %s", mn_message());
      else
        CHECK(status == MN_ERR_IO && strstr(mn_message(), "model.safetensors") &&
                  strstr(mn_message(), how == 3 ? "was changed"
                                       : again  ? ""
                                                : "cut short"),
              "%d: %s", how, mn_message());
      status = mn_model_fingerprint(m, p, hex);
      CHECK(status == (how ? MN_ERR_IO : MN_OK), "%d: nothing is saved by its name: %s", how, mn_message());
      CHECK_OK(mn_file_write(weights, bytes, size));
    }
    free(bytes);
    mn_params_free(p);
    mn_model_free(m);
  }
  fixture_close(&f);
}

/* ---- what is not the set's own is not written ---- */
static void a_mapped_file_is_not_written(void) {
  const char *path = IN("kept.safetensors");
  mn_backend b = counting(true);
  net from = declare(&b, MN_F32, true), n = declare(&b, MN_F32, true);
  char was[MN_HASH_HEX], is[MN_HASH_HEX];
  float y[D];
  CHECK_OK(mn_params_draw(from.p, 9));
  CHECK_OK(mn_params_save(from.p, path));
  CHECK_OK(mn_file_hash(path, was));
  CHECK_OK(mn_params_map(n.p, path));
  CHECK(run(&n, y) == MN_ERR_ARG && strstr(mn_message(), "mean") && strstr(mn_message(), "mapped"), "a plan that assigns: %s",
        mn_message());
  CHECK(mn_params_load(n.p, path) == MN_ERR_ARG && strstr(mn_message(), "mapped"), "%s", mn_message());
  CHECK(mn_params_draw(n.p, 2) == MN_ERR_ARG && strstr(mn_message(), "mapped"), "%s", mn_message());
  CHECK_OK(mn_params_own(n.p));
  CHECK(held == 2 * bytes_of(n.p) && !n.p->file.file, "copied: %zu bytes", held);
  CHECK_OK(run(&n, y));
  CHECK(values(n.p, "mean")[1] == 1.25f && *(int64_t *)n.p->data[mn_params_find(n.p, "seen")] == 4, "training moved its own");
  CHECK_OK(mn_params_draw(n.p, 2));
  CHECK_OK(mn_file_hash(path, is));
  CHECK(!strcmp(was, is), "the file is as it was");
  end(&n);
  end(&from);
  CHECK(held == 0, "%zu bytes are left", held);
}

/* ---- shared ---- */
static void a_shared_tensor_is_one_in_both(void) {
  mn_backend b = counting(true);
  net teacher = declare(&b, MN_F32, true), n = declare(&b, MN_F32, false);
  float before[D], after[D];
  CHECK(mn_params_share(n.p, "mean", teacher.p, "mean") == MN_ERR_ARG && strstr(mn_message(), "no value"), "%s", mn_message());
  CHECK_OK(mn_params_draw(teacher.p, 1));
  const size_t alone = held;
  CHECK_OK(mn_params_share(n.p, "mean", teacher.p, "mean"));
  CHECK_OK(mn_params_share(n.p, "weight", n.p, "mean")); /* of one set: tied */
  CHECK(held == alone, "sharing takes no memory");
  CHECK_OK(mn_params_draw(n.p, 2));
  CHECK(held == 2 * alone - 2 * D * sizeof(float), "%zu bytes, of which the teacher has %zu", held, alone);
  CHECK(values(n.p, "mean")[1] == 0.5f && values(n.p, "mean") == values(teacher.p, "mean"), "drawing leaves what is shared");
  CHECK_OK(run(&n, before));
  CHECK_OK(run(&teacher, after)); /* which moves its mean to 1.25 at place 1, and so ours */
  CHECK_OK(run(&n, after));
  CHECK(values(n.p, "weight")[1] == 1.25f && fabsf(after[1] - before[1] - 0.75f * 2 - 0.75f) < 1e-6f, "moved by %g",
        (double)(after[1] - before[1]));
  net writer = declare(&b, MN_F32, true);
  CHECK_OK(mn_params_share(writer.p, "mean", n.p, "mean")); /* of a set that shares it itself */
  CHECK_OK(mn_params_draw(writer.p, 3));
  CHECK(run(&writer, after) == MN_ERR_ARG && strstr(mn_message(), "mean") && strstr(mn_message(), "shared"), "%s", mn_message());
  CHECK(values(teacher.p, "mean")[1] == 1.25f, "nothing was written");
  CHECK(mn_params_own(n.p) == MN_ERR_ARG, "others share from it");
  CHECK_OK(mn_params_own(writer.p));
  CHECK_OK(run(&writer, after));
  CHECK(values(writer.p, "mean")[1] == 1.625f && values(teacher.p, "mean")[1] == 1.25f, "a copy moves alone");
  end(&writer);
  end(&teacher);
  CHECK(held == 2 * alone - 2 * D * sizeof(float), "the owner's memory stays while somebody shares it: %zu", held);
  CHECK_OK(run(&n, after));
  end(&n);
  CHECK(held == 0, "%zu bytes are left", held);
}

static void what_cannot_be_shared_is_refused(void) {
  mn_backend b = counting(true), other = b;
  net a = declare(&b, MN_F32, false), c = declare(&b, MN_F32, false), half = declare(&b, MN_BF16, false),
      far = declare(&other, MN_F32, false);
  CHECK_OK(mn_params_draw(a.p, 1));
  CHECK_OK(mn_params_draw(far.p, 1));
  CHECK(mn_params_share(c.p, "bias", a.p, "wieght") == MN_ERR_ARG && strstr(mn_message(), "wieght"), "%s", mn_message());
  CHECK(mn_params_share(c.p, "seen", a.p, "mean") == MN_ERR_SHAPE && strstr(mn_message(), "seen"), "%s", mn_message());
  CHECK(mn_params_share(half.p, "bias", a.p, "bias") == MN_ERR_SHAPE && strstr(mn_message(), "bf16"), "%s", mn_message());
  CHECK(mn_params_share(c.p, "bias", far.p, "bias") == MN_ERR_ARG && strstr(mn_message(), "backends"), "%s", mn_message());
  CHECK(mn_params_share(a.p, "bias", a.p, "gain") == MN_ERR_ARG && strstr(mn_message(), "already"), "%s", mn_message());
  CHECK_OK(mn_params_share(c.p, "bias", a.p, "gain"));
  CHECK(mn_params_load(c.p, IN("five.safetensors")) == MN_ERR_ARG && strstr(mn_message(), "bias"), "%s", mn_message());
  net d = declare(&b, MN_F32, false), e = declare(&b, MN_F32, false);
  CHECK_OK(mn_params_need(d.p, mn_params_find(d.p, "gain")));
  CHECK_OK(mn_params_share(e.p, "gain", d.p, "gain"));
  CHECK_OK(mn_params_need(e.p, mn_params_find(e.p, "bias")));
  CHECK(mn_params_share(d.p, "bias", e.p, "bias") == MN_ERR_ARG && strstr(mn_message(), "shares from"), "in a ring: %s", mn_message());
  end(&d);
  end(&e);
  end(&far);
  end(&half);
  end(&a);
  end(&c);
  CHECK(held == 0, "%zu bytes are left", held);
}

/* Who shares from a set whose values are mapped keeps the file, and is told of it. */
static void a_shared_tensor_may_be_mapped(void) {
  const char *path = IN("lent.safetensors");
  mn_backend b = counting(true);
  net from = declare(&b, MN_F32, false), n = declare(&b, MN_F32, false);
  float y[D];
  CHECK_OK(mn_params_draw(n.p, 1));
  CHECK_OK(mn_params_save(n.p, path));
  end(&n);
  n = declare(&b, MN_F32, false);
  CHECK_OK(mn_params_map(from.p, path));
  CHECK_OK(mn_params_share(n.p, "weight", from.p, "weight"));
  CHECK_OK(mn_params_draw(n.p, 2));
  end(&from);
  CHECK_OK(run(&n, y));
  CHECK_OK(mn_params_check_files(n.p));
  CHECK(truncate(path, 100) == 0, "cut");
  CHECK_OK(run(&n, y)); /* no signal ends it; whoever runs plans asks */
  CHECK(mn_params_check_files(n.p) == MN_ERR_IO && strstr(mn_message(), "cut short"), "%s", mn_message());
  void *host;
  CHECK(mn_params_on_host(n.p, 0, &host) == MN_ERR_IO, "%s", mn_message());
  end(&n);
  CHECK(held == 0, "%zu bytes are left", held);
}

int main(void) {
  RUN(declaring_takes_no_memory);
  RUN(an_opened_model_takes_no_memory);
  RUN(types_and_alignment_decide_what_is_mapped);
  RUN(what_is_wrong_with_a_file_is_said_when_it_is_mapped);
  RUN(a_file_that_changes_under_its_model);
  RUN(a_mapped_file_is_not_written);
  RUN(a_shared_tensor_is_one_in_both);
  RUN(what_cannot_be_shared_is_refused);
  RUN(a_shared_tensor_may_be_mapped);
  return test_end();
}
