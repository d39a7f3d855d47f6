/* verb_tokenize.c - `mneme tokenize`: text to tokens and back, as a model reads and says them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/bundle.h"
#include "cli/cli.h"

enum { READ_AT_ONCE = 1 << 16, KEPT_LIMIT = 64 << 20 /* bytes of a text that is held whole */ };

/* What has come on standard input by now, so that a log that grows is shown as it does; *n is 0 at its end. */
static mn_status read_some(char piece[READ_AT_ONCE], size_t *n) {
  ssize_t got;
  do {
    MN_TRY(mn_stop_check("reading the text"));
    got = read(STDIN_FILENO, piece, READ_AT_ONCE);
  } while (got < 0 && errno == EINTR);
  *n = got > 0 ? (size_t)got : 0;
  return got < 0 ? mn_fail(MN_ERR_IO, "standard input cannot be read: %s", strerror(errno)) : MN_OK;
}

/* Ids to be decoded, and what one JSON document is made of; a text whose tokens are printed as they come has no end to fear. */
static mn_status read_input(mn_text *out) {
  char piece[READ_AT_ONCE];
  for (size_t n = 1; n > 0;) {
    MN_TRY(read_some(piece, &n));
    mn_text_add_bytes(out, piece, n);
    if (out->len > KEPT_LIMIT)
      return mn_fail(MN_ERR_CONFIG,
                     "standard input has more than the %d MiB that --json and --decode hold: give it in parts, or, for tokens, "
                     "leave out --json",
                     KEPT_LIMIT >> 20);
  }
  return mn_text_status(out);
}

/* ---- to tokens ---- */
static mn_status show_json(mn_cli *cli, const mn_tokenizer *tok, const mn_ids *ids) {
  json_t *numbers = json_array(), *pieces = json_array();
  for (size_t i = 0; i < ids->len; i++) {
    size_t n;
    const char *piece = mn_tokenizer_token(tok, ids->data[i], &n);
    json_array_append_new(numbers, json_integer(ids->data[i]));
    json_array_append_new(pieces, mn_cli_bytes(piece, n));
  }
  return mn_cli_json(cli, json_pack("{s:o,s:o}", "ids", numbers, "tokens", pieces));
}

/* A line for each, or with --ids one line for all: `before` came before these. */
static mn_status show_ids(mn_cli *cli, const mn_tokenizer *tok, const mn_ids *ids, size_t before) {
  const bool bare = mn_cli_given(cli, "ids");
  for (size_t i = 0; i < ids->len; i++) {
    if (bare) {
      mn_print("%s%d", before + i ? " " : "", ids->data[i]);
      continue;
    }
    mn_text piece = {0};
    size_t n;
    const char *bytes = mn_tokenizer_token(tok, ids->data[i], &n);
    mn_text_add_shown(&piece, bytes ? bytes : "", bytes ? n : 0, false);
    mn_status status = mn_text_status(&piece);
    if (status == MN_OK)
      mn_print("%8d  \"%s\"%s\n", ids->data[i], piece.data ? piece.data : "",
               mn_tokenizer_is_special(tok, ids->data[i]) ? "  special" : "");
    mn_text_free(&piece);
    MN_TRY(status);
  }
  return MN_OK;
}

static unsigned how(const mn_cli *cli) {
  return (mn_cli_given(cli, "plain") ? 0 : MN_ENCODE_TEMPLATE) | (mn_cli_given(cli, "special") ? MN_ENCODE_SPECIAL : 0);
}

static mn_status encode(mn_cli *cli, const mn_tokenizer *tok, const char *text, size_t n) {
  mn_ids ids = {0};
  mn_status status = mn_tokenizer_encode(tok, text, n, how(cli), &ids);
  if (status == MN_OK) status = cli->json ? show_json(cli, tok, &ids) : show_ids(cli, tok, &ids, 0);
  if (status == MN_OK && mn_cli_given(cli, "ids")) mn_print("\n");
  mn_ids_free(&ids);
  return status;
}

/* Standard input, however long, as it comes. */
static mn_status encode_stream(mn_cli *cli, const mn_tokenizer *tok) {
  const unsigned flags = how(cli);
  char piece[READ_AT_ONCE];
  mn_encoder *enc = NULL;
  mn_ids ids = {0};
  size_t before = 0;
  mn_status status = mn_encoder_new(tok, &enc);
  for (size_t n = 1; n > 0 && status == MN_OK;) {
    status = read_some(piece, &n);
    if (status == MN_OK) status = n ? mn_encoder_push(enc, piece, n, flags, &ids) : mn_encoder_finish(enc, flags, &ids);
    if (status == MN_OK) status = show_ids(cli, tok, &ids, before);
    if (n < sizeof piece) mn_print_flush(); /* nothing more is there now */
    before += ids.len;
    ids.len = 0;
  }
  if (status == MN_OK && mn_cli_given(cli, "ids")) mn_print("\n");
  mn_ids_free(&ids);
  mn_encoder_free(enc);
  return status;
}

/* ---- and back ---- */
static mn_status read_ids(const char *text, size_t n, mn_ids *out) {
  if (memchr(text, 0, n)) return mn_fail(MN_ERR_CONFIG, "--decode reads token ids, and this holds a zero byte: it is no text");
  for (const char *p = text; *(p += strspn(p, " \t\r\n,[]"));) {
    char *end;
    errno = 0;
    const long id = strtol(p, &end, 10);
    if (end == p || errno || id < 0 || id > INT32_MAX || (*end && !strchr(" \t\r\n,]", *end)))
      return mn_fail(MN_ERR_CONFIG, "--decode reads token ids, numbers with spaces or commas between them; '%.*s' is none",
                     (int)strcspn(p, " \t\r\n,"), p);
    MN_TRY(mn_ids_add(out, (int32_t)id));
    p = end;
  }
  return MN_OK;
}

static mn_status decode(mn_cli *cli, const mn_tokenizer *tok, const char *text, size_t n) {
  mn_ids ids = {0};
  mn_text said = {0};
  mn_status status = read_ids(text, n, &ids);
  if (status == MN_OK) status = mn_tokenizer_decode(tok, ids.data, ids.len, mn_cli_given(cli, "plain"), &said);
  if (status == MN_OK && cli->json)
    status = mn_cli_json(cli, json_pack("{s:o}", "text", mn_cli_bytes(said.data ? said.data : "", said.len)));
  else if (status == MN_OK) mn_print_model_text(said.data ? said.data : "", said.len);
  mn_text_free(&said);
  mn_ids_free(&ids);
  return status;
}

static mn_status work(mn_cli *cli, mn_tokenizer *tok, mn_text *input) {
  const bool back = mn_cli_given(cli, "decode");
  MN_TRY(mn_cli_only(cli, !back, "making tokens of text", "special ids"));
  MN_TRY(mn_cli_only(cli, !cli->json, "people; JSON has ids and tokens", "ids"));
  if (cli->n_args < 2 && !back && !cli->json) return encode_stream(cli, tok);
  if (cli->n_args < 2) MN_TRY(read_input(input));
  for (int i = 1; i < cli->n_args; i++) mn_text_addf(input, "%s%s", i > 1 ? " " : "", cli->args[i]);
  mn_text_add(input, "");
  MN_TRY(mn_text_status(input));
  return back ? decode(cli, tok, input->data, input->len) : encode(cli, tok, input->data, input->len);
}

static mn_status run(mn_cli *cli) {
  mn_tokenizer *tok = NULL;
  mn_text input = {0};
  mn_status status = mn_bundle_tokenizer_of(cli->args[0], &tok);
  if (status == MN_OK && !mn_cli_given(cli, "decode")) mn_tokenizer_warn_of_cuts(tok);
  if (status == MN_OK) status = work(cli, tok, &input);
  mn_text_free(&input);
  mn_tokenizer_free(tok);
  return status;
}

static const mn_option options[] = {
    {"decode", NULL, NULL, "the other way: what is given are ids, and their text comes out", 0},
    {"plain", NULL, NULL, "without the tokens that the tokenizer puts around a text; with --decode without special tokens", 0},
    {"special", NULL, NULL, "text that spells a special token becomes it", 0},
    {"ids", NULL, NULL, "only the ids, in one line", 0},
    {0}};
static const char *const examples[] = {"mneme tokenize runs/quick \"Call me Ishmael.\"",
                                       "mneme tokenize runs/quick --ids < data/books/moby-dick.txt",
                                       "mneme tokenize runs/quick --decode 72 101 121", NULL};
const mn_verb mn_verb_tokenize = {
    .name = "tokenize",
    .purpose = MN_VERB_LOOK,
    .summary = "text to tokens and back, as a model reads and says them",
    .usage = "MODEL [TEXT] [options]",
    .about =
        "MODEL is a model's directory, a GGUF file or a tokenizer.json. Without TEXT it is read from standard input. A line for each token: its id and what "
        "it stands for.",
    .options = options,
    .examples = examples,
    .min_args = 1,
    .max_args = -1,
    .run = run};
