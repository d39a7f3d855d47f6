/* verb_embed.c - `mneme embed`: texts as vectors, and how near they are to each other. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/bundle.h"
#include "cli/cli.h"
#include "run/embedder.h"

enum { MOST_TEXTS = 65536, LINE = 1 << 20 };

typedef struct embedding {
  mn_cli *cli;
  mn_bundle bundle;
  mn_embedder *embedder;
  int64_t n, room, width;
  char **texts;
  mn_ids *ids;
  float *vectors; /* [n, width], each of length 1 */
} embedding;

static mn_status add_text(embedding *e, const char *text) {
  if (e->n == MOST_TEXTS) return mn_fail(MN_ERR_CONFIG, "more than %d texts; give them in several calls", MOST_TEXTS);
  if (e->n == e->room) {
    const int64_t room = e->room ? 2 * e->room : 64;
    char **more = mn_realloc(e->texts, (size_t)room * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    e->texts = more;
    e->room = room;
  }
  return (e->texts[e->n] = mn_strdup(text)) ? (e->n++, MN_OK) : MN_ERR_MEMORY;
}

/* Without words each line of standard input is a text. */
static mn_status read_texts(embedding *e) {
  for (int i = 1; i < e->cli->n_args; i++) MN_TRY(add_text(e, e->cli->args[i]));
  char *line = e->n ? NULL : mn_alloc(LINE);
  mn_status status = e->n || line ? MN_OK : MN_ERR_MEMORY;
  while (line && status == MN_OK && fgets(line, LINE, stdin)) {
    const size_t n = strcspn(line, "\r\n");
    if (!line[n] && !feof(stdin))
      status =
          mn_fail(MN_ERR_CONFIG, "line %lld of standard input is longer than %d bytes, or holds a zero byte", (long long)e->n + 1, LINE);
    line[n] = 0;
    if (status == MN_OK) status = add_text(e, line);
    if (status == MN_OK) status = mn_stop_check("reading texts");
  }
  if (line && status == MN_OK) status = mn_stop_check("waiting for texts"); /* what a signal ends is no error of the input */
  if (line && status == MN_OK && ferror(stdin)) status = mn_fail(MN_ERR_IO, "standard input cannot be read: %s", strerror(errno));
  free(line);
  return status != MN_OK || e->n ? status : mn_fail(MN_ERR_CONFIG, "nothing to embed: give texts, or lines on standard input");
}

static mn_status make_vectors(embedding *e) {
  const int32_t **tokens = mn_alloc((size_t)e->n * sizeof *tokens);
  int64_t *length = mn_alloc((size_t)e->n * sizeof *length);
  e->ids = mn_calloc((size_t)e->n, sizeof *e->ids);
  e->vectors = mn_alloc((size_t)(e->n * e->width) * sizeof *e->vectors);
  mn_status status = tokens && length && e->ids && e->vectors ? MN_OK : MN_ERR_MEMORY;
  for (int64_t i = 0; i < e->n && status == MN_OK; i++) {
    status = mn_tokenizer_encode(e->bundle.tokenizer, e->texts[i], strlen(e->texts[i]), MN_ENCODE_TEMPLATE, &e->ids[i]);
    length[i] = (int64_t)e->ids[i].len;
    tokens[i] = e->ids[i].data;
    if (status == MN_OK) status = mn_stop_check("tokenising"); /* many short texts are long, too */
    if (status == MN_OK && (!length[i] || length[i] > mn_embedder_most(e->embedder)))
      status = mn_fail(MN_ERR_CONFIG, "text %lld has %lld tokens; from 1 to %lld are read", (long long)i + 1, (long long)length[i],
                       (long long)mn_embedder_most(e->embedder));
  }
  if (status == MN_OK) status = mn_embedder_texts(e->embedder, e->n, tokens, length, e->vectors);
  free(tokens);
  free(length);
  return status;
}

static double cosine(const embedding *e, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t d = 0; d < e->width; d++) sum += (double)e->vectors[a * e->width + d] * (double)e->vectors[b * e->width + d];
  return sum;
}

static mn_status show(const embedding *e) {
  const bool near = mn_cli_given(e->cli, "cosine");
  if (e->cli->json) {
    json_t *rows = json_array();
    for (int64_t i = 0; i < e->n; i++) {
      json_t *row = json_array();
      for (int64_t k = 0; k < (near ? e->n : e->width); k++)
        json_array_append_new(row, mn_cli_number(near ? cosine(e, i, k) : (double)e->vectors[i * e->width + k]));
      json_array_append_new(rows, row);
    }
    return mn_cli_json(e->cli, json_pack("{s:I,s:o}", "width", (json_int_t)e->width, near ? "cosine" : "vectors", rows));
  }
  for (int64_t i = 0; i < e->n; i++) {
    for (int64_t k = 0; k < (near ? e->n : e->width); k++)
      mn_print(near ? "%s%7.4f" : "%s%.9g", k ? " " : "", near ? cosine(e, i, k) : (double)e->vectors[i * e->width + k]);
    mn_print("\n");
  }
  return MN_OK;
}

static mn_status work(embedding *e) {
  mn_dtype compute;
  MN_TRY(mn_cli_precision(e->cli, "precision", false, &compute));
  MN_TRY(mn_bundle_open(e->cli->args[0], e->cli->backend, e->cli->threads, &e->bundle));
  MN_TRY(mn_bundle_need_tokenizer(&e->bundle, e->cli->args[0]));
  if (e->bundle.sentences.fault) return mn_fail(MN_ERR_UNSUPPORTED, "%s", e->bundle.sentences.fault);
  const mn_embedder_config c = {e->bundle.model, e->bundle.params, compute, e->bundle.sentences.pooling, e->bundle.sentences.most};
  MN_TRY(mn_embedder_new(&c, &e->embedder));
  e->width = mn_embedder_width(e->embedder);
  MN_TRY(read_texts(e));
  MN_TRY(make_vectors(e));
  return show(e);
}

static mn_status run(mn_cli *cli) {
  embedding e = {.cli = cli};
  mn_status status = work(&e);
  for (int64_t i = 0; i < e.n; i++) {
    free(e.texts[i]);
    if (e.ids) mn_ids_free(&e.ids[i]);
  }
  free(e.texts);
  free(e.ids);
  free(e.vectors);
  mn_embedder_free(e.embedder);
  mn_bundle_close(&e.bundle);
  return status;
}

static const mn_option options[] = {{"cosine", NULL, NULL, "the cosine of each text's vector and each other's, not the vectors", 0},
                                    {"precision", "WORD", "f32", "f32 or bf16", 0},
                                    {0}};
static const char *const examples[] = {"mneme embed models/all-MiniLM-L6-v2 \"A man eats.\" \"Someone has lunch.\" --cosine",
                                       "mneme embed models/all-MiniLM-L6-v2 --json < lines.txt", NULL};
const mn_verb mn_verb_embed = {
    .name = "embed",
    .purpose = MN_VERB_USE,
    .summary = "texts as vectors, and how near they are to each other",
    .usage = "MODEL [TEXT ...] [options]",
    .about =
        "MODEL is an encoder of tokens, such as a directory of Hugging Face's with a BERT. Without TEXT each line of standard input is one. A "
        "text's vector is the mean of what the model says of its tokens, or of one of them, as its files say, of length 1: a line of numbers for each.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS,
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
