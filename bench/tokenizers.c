/* tokenizers.c - what a tokenizer makes of a file, and how fast.
 *
 *     bench-tokenizers encode TOKENIZER TEXT OUT [PIECE]   ids as 32-bit integers; PIECE: the text comes in pieces of so many bytes
 *     bench-tokenizers decode TOKENIZER IDS OUT            and back
 *     bench-tokenizers load TOKENIZER                      reading it alone
 *     bench-tokenizers save TOKENIZER OUT                  as a tokenizer.json
 *     bench-tokenizers texts TOKENIZER TEXTS OUT           TEXTS: each text ended by a zero byte; OUT: a line of ids for each, a tab,
 *                                                          the decoded text as JSON writes it
 *
 * TOKENIZER: a tokenizer.json or a GGUF file. One thread. Prints one line of JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/tokenizer_gguf.h"

static mn_status open_tokenizer(const char *path, mn_tokenizer **out) {
  size_t n = strlen(path);
  if (n < 5 || strcmp(path + n - 5, ".gguf") != 0) return mn_tokenizer_load(path, out);
  mn_gguf *g;
  MN_TRY(mn_gguf_open(path, &g));
  mn_status status = mn_tokenizer_from_gguf(g, out);
  mn_gguf_close(g);
  return status;
}

static mn_status encode(const mn_tokenizer *tok, const char *text, size_t n, size_t piece, mn_ids *ids) {
  mn_encoder *enc;
  MN_TRY(mn_encoder_new(tok, &enc));
  mn_status status = MN_OK;
  if (piece) {
    for (size_t at = 0; at < n && status == MN_OK; at += piece)
      status = mn_encoder_push(enc, text + at, n - at < piece ? n - at : piece, MN_ENCODE_SPECIAL, ids);
    if (status == MN_OK) status = mn_encoder_finish(enc, MN_ENCODE_SPECIAL, ids);
  } else {
    status = mn_encoder_add(enc, text, n, MN_ENCODE_SPECIAL, ids);
  }
  mn_encoder_free(enc);
  return status;
}

static mn_status texts(const mn_tokenizer *tok, const char *text, size_t n, FILE *out) {
  for (size_t at = 0; at < n;) {
    size_t len = strnlen(text + at, n - at);
    mn_ids ids = {0};
    mn_text back = {0};
    MN_TRY(mn_tokenizer_encode(tok, text + at, len, MN_ENCODE_SPECIAL, &ids));
    for (size_t i = 0; i < ids.len; i++) fprintf(out, i ? " %d" : "%d", ids.data[i]);
    MN_TRY(mn_tokenizer_decode(tok, ids.data, ids.len, false, &back));
    json_t *shown = json_stringn(back.len ? back.data : "", back.len);
    char *line = shown ? json_dumps(shown, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    fprintf(out, "\t%s\n", line ? line : "null");
    free(line);
    json_decref(shown);
    mn_text_free(&back);
    mn_ids_free(&ids);
    at += len + 1;
  }
  return MN_OK;
}

int main(int argc, char **argv) {
  if (argc < 3 || (strcmp(argv[1], "load") != 0 && strcmp(argv[1], "save") != 0 && argc < 5)) {
    fprintf(stderr, "usage: bench-tokenizers encode|decode|texts TOKENIZER FILE OUT [PIECE], or load TOKENIZER\n");
    return 2;
  }
  mn_tokenizer *tok = NULL;
  char *data = NULL;
  size_t n = 0;
  double begin = mn_now();
  mn_status status = open_tokenizer(argv[2], &tok);
  double loaded = mn_now() - begin, seconds = 0;
  if (status == MN_OK && argc > 3 && !strcmp(argv[1], "save")) status = mn_tokenizer_save(tok, argv[3]);
  else if (status == MN_OK && argc > 3) status = mn_file_read(argv[3], (size_t)1 << 32, &data, &n);
  mn_ids ids = {0};
  mn_text text = {0};
  begin = mn_now();
  if (status == MN_OK && !strcmp(argv[1], "encode")) {
    status = encode(tok, data, n, argc > 5 ? strtoull(argv[5], NULL, 10) : 0, &ids);
    seconds = mn_now() - begin;
    if (status == MN_OK) status = mn_file_write(argv[4], ids.data, ids.len * sizeof *ids.data);
  } else if (status == MN_OK && !strcmp(argv[1], "decode")) {
    status = mn_tokenizer_decode(tok, (const int32_t *)(const void *)data, n / 4, false, &text);
    seconds = mn_now() - begin;
    if (status == MN_OK) status = mn_file_write(argv[4], text.len ? text.data : "", text.len);
  } else if (status == MN_OK && !strcmp(argv[1], "texts")) {
    FILE *out = fopen(argv[4], "w");
    status = out ? texts(tok, data, n, out) : mn_fail(MN_ERR_IO, "%s cannot be written", argv[4]);
    if (out) fclose(out);
  }
  if (status == MN_OK)
    printf("{\"load_seconds\": %.4f, \"seconds\": %.4f, \"bytes\": %zu, \"ids\": %zu}\n", loaded, seconds, text.len ? text.len : n,
           ids.len ? ids.len : n / 4);
  else fprintf(stderr, "bench-tokenizers: %s\n", mn_message());
  mn_ids_free(&ids);
  mn_text_free(&text);
  free(data);
  mn_tokenizer_free(tok);
  return status == MN_OK ? 0 : 1;
}
