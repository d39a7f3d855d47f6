/* opened.c - what mapping a model's weights saves: opened copied and mapped by turns, in one thread, and run.
 *
 *     bench-opened DIR
 *
 * DIR is a model; where there is none, one of 36 million drawn parameters is made there. Medians of 5 turns, processor time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "format/yaml.h"
#include "run/session.h"

enum { TURNS = 5, PROMPT = 256, TOKENS = 60 };

static const char text[] = "{vocab_size: 16000, d_model: 512, layers: 8, block: {mixer: {type: gated_deltanet, heads: 8}, hidden: 1408}}";

static double seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* MiB of memory that is the process's own. */
static double own_memory(void) {
  char line[256];
  double kib = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, "RssAnon:", 8)) kib = strtod(line + 8, NULL);
  if (f) fclose(f);
  return kib / 1024;
}

static mn_status make(const char *dir, mn_backend *b) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v;
  mn_model *m = NULL;
  mn_params *p = NULL;
  mn_status status = arena ? mn_yaml_parse(arena, "bench", text, strlen(text), &v) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_model_parse(v, "bench", 0, &m);
  if (status == MN_OK) status = mn_params_new(m, b, MN_F32, 1, &p);
  if (status == MN_OK) status = mn_model_save_dir(m, p, dir);
  mn_params_free(p);
  mn_model_free(m);
  mn_arena_free(arena);
  return status;
}

typedef struct figures {
  double open[TURNS], memory[TURNS], prompt[TURNS], token[TURNS];
} figures;

static mn_status run(mn_session *s, int64_t vocab_size, figures *f, int turn) {
  int32_t tokens[PROMPT];
  const float *logits;
  for (int i = 0; i < PROMPT; i++) tokens[i] = (int32_t)(i * 37 % vocab_size);
  MN_TRY(mn_session_feed(s, tokens, PROMPT, &logits)); /* compiles */
  MN_TRY(mn_session_feed(s, tokens, 1, &logits));
  double begin = seconds();
  MN_TRY(mn_session_feed(s, tokens, PROMPT, &logits));
  f->prompt[turn] = seconds() - begin;
  begin = seconds();
  for (int i = 0; i < TOKENS; i++) MN_TRY(mn_session_feed(s, tokens + i, 1, &logits));
  f->token[turn] = (seconds() - begin) / TOKENS;
  return MN_OK;
}

static mn_status one_turn(const char *dir, mn_backend *b, bool mapped, figures *f, int turn) {
  mn_model *m = NULL;
  mn_params *p = NULL;
  mn_session *s = NULL;
  const double before = own_memory(), begin = seconds();
  mn_status status = (mapped ? mn_model_open_dir : mn_model_load_dir)(dir, b, MN_F32, &m, &p);
  f->open[turn] = seconds() - begin;
  f->memory[turn] = own_memory() - before;
  if (status == MN_OK) status = mn_session_new(m, p, &(mn_session_config){0}, &s);
  if (status == MN_OK) status = run(s, m->config.vocab_size, f, turn);
  mn_session_free(s);
  mn_params_free(p);
  mn_model_free(m);
  return status;
}

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *x) {
  qsort(x, TURNS, sizeof *x, rising);
  return x[TURNS / 2];
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: bench-opened DIR\n"), 2;
  mn_backend *b = NULL;
  figures f[2];
  mn_status status = mn_backend_cpu_new(1, &b);
  char *config = mn_path_join(argv[1], "config.json");
  if (status == MN_OK && !config) status = MN_ERR_MEMORY;
  if (status == MN_OK && !mn_file_exists(config)) status = make(argv[1], b);
  for (int i = 0; i < 2 * TURNS && status == MN_OK; i++) status = one_turn(argv[1], b, i % 2, &f[i % 2], i / 2);
  if (status != MN_OK) fprintf(stderr, "%s\n", mn_message());
  for (int k = 0; k < 2 && status == MN_OK; k++)
    printf("%-7s open %.3f s, %.0f MiB; a prompt of %d tokens %.3f s, a token %.2f ms\n", k ? "mapped" : "copied", median(f[k].open),
           median(f[k].memory), PROMPT, median(f[k].prompt), 1000 * median(f[k].token));
  free(config);
  mn_backend_free(b);
  return status == MN_OK ? 0 : 1;
}
