/* dialogues.c - conversations, a line of JSON each: {"messages": [{"role": "user", "content": "..."}, ...]}. A dialogue is a row: every
 * message becomes its role's prefix, its text and an end; what the assistant says, with the end token behind it, is asked for, and the
 * rest is only read, or asked for too. With `turn: L` a row is turns of L places each, for a model that answers in turns: a turn begins with
 * what the user says and ends with what is answered, and nothing is asked for across its end. */
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "source/examples.h"
#include "source/token_lists.h"

typedef struct config {
  mn_strings files, test_files;
  const char *user, *assistant, *system, *end;
  int learn, too_long;
  int64_t turn;
  double validation;
} config;
enum { ANSWERS, ALL };
static const char *const learned[] = {"answers", "all", NULL};
enum { REFUSE, CUT };
static const char *const lengths[] = {"refuse", "cut", NULL};
static const mn_field fields[] = {
    MN_FIELD_STRINGS(config, files, "files of JSON lines; *, ?, [ ], {a,b} and ~ are patterns"),
    MN_FIELD_STRINGS(config, test_files, "the same for the test"),
    MN_FIELD_STRING(config, user, "User: ", "what stands before a message of the user"),
    MN_FIELD_STRING(config, assistant, "Assistant: ", "before one of the assistant"),
    MN_FIELD_STRING(config, system, "", "before one of the system"),
    MN_FIELD_STRING(config, end, "\n", "behind every message; behind the assistant's the end token comes first"),
    MN_FIELD_ENUM(config, learn, learned, ANSWERS, "what is asked for: what the assistant says, or every token of the dialogue"),
    MN_FIELD_ENUM(config, too_long, lengths, REFUSE, "dialogues of more than train.seq_len tokens: a mistake, or cut behind them"),
    MN_FIELD_INT(config, turn, 0, 0, 1 << 20, "each turn has so many places of the row, filled up; 0: they follow one another", MN_SPARSE),
    MN_FIELD_FLOAT(config, validation, 0.05, 0, 0.9, "fraction of the dialogues that is held out"),
    MN_FIELD_END};

/* A list holds for each token id * 4 + 2 (a turn begins) + (the assistant says it). */
typedef struct dialogues {
  mn_token_lists part[2];
  int64_t longest;
  mn_held_out held_out;
  mn_encoder *enc;
  int32_t eos;
} dialogues;

static mn_status check(const mn_value *map, const char *where, void *c) {
  return ((const config *)c)->files.count ? MN_OK : mn_config_fail(map, where, "files", "is missing: dialogues, a line of JSON each");
}

static bool always(const void *c) {
  (void)c;
  return true;
}
static mn_strings texts(const void *c) { return ((const config *)c)->files; }

/* ---- reading ---- */

typedef struct reading {
  mn_source *s;
  mn_token_lists *out;
} reading;

static mn_status add(const reading *r, const char *text, size_t n, bool says) {
  const dialogues *x = r->s->data;
  size_t from = r->out->ids.len;
  MN_TRY(mn_encoder_add(x->enc, text, n, 0, &r->out->ids));
  for (size_t i = from; i < r->out->ids.len; i++) r->out->ids.data[i] = r->out->ids.data[i] * 4 + says;
  return MN_OK;
}

/* *answered: is what was said last the assistant's? */
static mn_status add_message(const reading *r, const mn_value *m, bool *answered) {
  const config *o = r->s->config;
  const dialogues *x = r->s->data;
  const mn_value *role = mn_value_get(m, "role"), *content = mn_value_get(m, "content");
  if (!role || role->kind != MN_TEXT || !content || content->kind != MN_TEXT)
    return mn_fail(MN_ERR_FORMAT, "a message has no texts 'role' and 'content'");
  bool assistant = !strcmp(role->as.text, "assistant"), user = !strcmp(role->as.text, "user");
  if (!assistant && !user && strcmp(role->as.text, "system") != 0)
    return mn_fail(MN_ERR_FORMAT, "the role '%.40s' is none of user, assistant, system", role->as.text);
  const char *prefix = assistant ? o->assistant : user ? o->user : o->system;
  const size_t from = r->out->ids.len;
  MN_TRY(add(r, prefix, strlen(prefix), false));
  MN_TRY(add(r, content->as.text, content->count, assistant));
  if (assistant && x->eos >= 0) MN_TRY(mn_ids_add(&r->out->ids, x->eos * 4 + 1));
  MN_TRY(add(r, o->end, strlen(o->end), false));
  if (*answered && !assistant && from < r->out->ids.len) r->out->ids.data[from] |= 2;
  *answered = assistant;
  return MN_OK;
}

static mn_status check_turns(const reading *r, size_t from) {
  const config *o = r->s->config;
  size_t begin = from;
  int n = 1;
  for (size_t i = from; i <= r->out->ids.len && o->too_long == REFUSE; i++) {
    if (i < r->out->ids.len && (i == from || !(r->out->ids.data[i] & 2))) continue;
    if (i - begin > (size_t)o->turn)
      return mn_fail(MN_ERR_CONFIG, "turn %d has %zu tokens, more than data.turn %lld; raise it, or set data.too_long: cut", n, i - begin,
                     (long long)o->turn);
    begin = i, n++;
  }
  return MN_OK;
}

static mn_status add_dialogue(const reading *r, mn_arena *arena, const char *place, const char *line, size_t n) {
  const mn_value *root = NULL;
  dialogues *x = r->s->data;
  MN_TRY(mn_json_parse(arena, place, line, n, &root));
  const mn_value *messages = mn_value_get(root, "messages");
  if (!messages || messages->kind != MN_LIST || !messages->count)
    return mn_fail(MN_ERR_FORMAT, "%s: has no list 'messages' of {role, content}", place);
  size_t from = r->out->ids.len;
  bool answered = false;
  for (size_t i = 0; i < messages->count; i++)
    MN_TRY(mn_context(add_message(r, messages->as.items[i], &answered), "%s: message %zu", place, i + 1));
  const config *o = r->s->config;
  if (o->turn && !answered)
    return mn_fail(MN_ERR_FORMAT, "%s: ends with a turn without an end: nothing of the assistant's follows; answer it, or leave it out",
                   place);
  if (o->turn) MN_TRY(mn_context(check_turns(r, from), "%s", place));
  int64_t length = (int64_t)(r->out->ids.len - from);
  if (length < 2) return mn_fail(MN_ERR_FORMAT, "%s: holds no text", place);
  if (length > x->longest) x->longest = length;
  return mn_token_lists_close_one(r->out);
}

static mn_status on_line(void *ctx, const char *place, const char *line, size_t n) {
  if (!n) return MN_OK;
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? add_dialogue(ctx, arena, place, line, n) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

static mn_status open_dialogues(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  dialogues *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  char hex[MN_HASH_HEX];
  if (!x) return MN_ERR_MEMORY;
  x->eos = mn_tokenizer_eos(s->tok);
  MN_TRY(mn_encoder_new(s->tok, &x->enc));
  for (int k = 0; k < 2; k++) {
    reading r = {s, &x->part[k]};
    const char *key = k ? "test_files" : "files";
    mn_strings files;
    MN_TRY(mn_example_files(s, k ? &o->test_files : &o->files, key, &files));
    for (int i = 0; i < files.count; i++) MN_TRY(mn_context(mn_each_line(files.items[i], on_line, &r), "data.%s", key));
    mn_content_hash(x->part[k].ids.data, x->part[k].ids.len * sizeof *x->part[k].ids.data, hex);
    mn_text_addf(&s->identity, "%s %lld ", hex, (long long)x->part[k].n);
  }
  if (!x->part[0].n) return mn_fail(MN_ERR_CONFIG, "data.files: no dialogue is there to train on");
  x->held_out = mn_hold_out(x->part[0].n, o->validation);
  s->vocab_size = mn_tokenizer_vocab_size(s->tok);
  if (o->learn == ALL) mn_text_add(&s->identity, "learn all ");
  if (o->turn) mn_text_addf(&s->identity, "turns of %lld ", (long long)o->turn);
  mn_text_addf(&s->identity, "held out %lld", (long long)x->held_out.held);
  return MN_OK;
}

static void close_dialogues(mn_source *s) {
  dialogues *x = s->data;
  if (!x) return;
  for (int k = 0; k < 2; k++) mn_token_lists_free(&x->part[k]);
  mn_encoder_free(x->enc);
}

/* ---- batches ---- */

static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  int64_t B = batch->B, T = batch->T;
  mn_batch_add(batch, "tokens", MN_I32, MN_SHAPE(B, T), "the dialogue");
  mn_batch_add(batch, "target", MN_I32, MN_SHAPE(B, T), "the token after each, where it is asked for");
  mn_batch_add(batch, "length", MN_I32, MN_SHAPE(B), o->turn ? "places up to the end of the last turn" : "tokens that are there");
  if (!o->turn) return;
  mn_batch_add(batch, "masks", MN_I32, MN_SHAPE(B, T), "1 where a place of a turn is there");
  mn_batch_add(batch, "masked", MN_I32, MN_SHAPE(B, T), "the dialogue, for who hides tokens of it");
  mn_batch_add(batch, "masked_target", MN_I32, MN_SHAPE(B, T), "what is hidden there: nothing yet");
}

static int64_t count(const mn_source *s, int split) {
  const dialogues *x = s->data;
  return split == MN_SPLIT_TEST ? x->part[1].n : mn_held_out_count(&x->held_out, split == MN_SPLIT_VALIDATION);
}

enum { TOKENS, TARGET, LENGTH, MASKS, MASKED, MASKED_TARGET };

/* Places [at, at + room) of row b from n tokens, of which the last is only asked for where it does not end a turn. */
static void put(const config *o, mn_batch *batch, int64_t b, int64_t at, int64_t room, const int32_t *coded, int64_t n) {
  int32_t *tokens = (int32_t *)mn_batch_row(batch, TOKENS, b) + at, *target = (int32_t *)mn_batch_row(batch, TARGET, b) + at;
  for (int64_t t = 0; t < room; t++) {
    const bool there = o->turn ? t < n : t < n - 1, asked = t + 1 < n && (o->learn == ALL || coded[t + 1] & 1);
    tokens[t] = there ? coded[t] >> 2 : 0;
    target[t] = asked ? coded[t + 1] >> 2 : MN_IGNORE;
    if (!o->turn) continue;
    ((int32_t *)mn_batch_row(batch, MASKS, b))[at + t] = there;
    ((int32_t *)mn_batch_row(batch, MASKED, b))[at + t] = tokens[t];
    ((int32_t *)mn_batch_row(batch, MASKED_TARGET, b))[at + t] = MN_IGNORE;
  }
}

/* A dialogue by turns of o->turn places. */
static mn_status put_turns(const config *o, mn_batch *batch, int64_t b, const int32_t *coded, int64_t n) {
  const int64_t L = o->turn, room = batch->T / L;
  int64_t turns = 0;
  for (int64_t t = 0, next; t < n; t = next, turns++) {
    for (next = t + 1; next < n && !(coded[next] & 2);) next++;
    if (turns < room) put(o, batch, b, turns * L, L, coded + t, next - t < L ? next - t : L);
  }
  if (turns > room && o->too_long == REFUSE)
    return mn_fail(MN_ERR_CONFIG,
                   "data: a dialogue has %lld turns, and train.seq_len %lld has room for %lld of data.turn %lld; raise it, or set "
                   "data.too_long: cut",
                   (long long)turns, (long long)batch->T, (long long)room, (long long)L);
  if (turns > room) turns = room;
  for (int64_t k = turns * L; k < batch->T; k += L) put(o, batch, b, k, batch->T - k < L ? batch->T - k : L, coded, 0);
  *(int32_t *)mn_batch_row(batch, LENGTH, b) = (int32_t)(turns * L);
  return MN_OK;
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  (void)epoch;
  const config *o = s->config;
  const dialogues *x = s->data;
  bool test = split == MN_SPLIT_TEST;
  int64_t i = test ? index : mn_held_out_at(&x->held_out, split == MN_SPLIT_VALIDATION, index), T = batch->T;
  const int32_t *coded;
  int64_t n = mn_token_list(&x->part[test], i, &coded);
  if (o->turn) return put_turns(o, batch, b, coded, n);
  if (n - 1 > T && o->too_long == REFUSE)
    return mn_fail(MN_ERR_CONFIG,
                   "data: a dialogue has %lld tokens (the longest %lld), more than train.seq_len %lld; raise it, or set data.too_long: cut",
                   (long long)n, (long long)x->longest, (long long)T);
  if (n - 1 > T) n = T + 1;
  put(o, batch, b, 0, T, coded, n);
  *(int32_t *)mn_batch_row(batch, LENGTH, b) = (int32_t)(n - 1);
  return MN_OK;
}

const mn_source_def mn_source_dialogues = {
    .name = "dialogues",
    .summary = "conversations as JSON lines: what the assistant says, or all of it, is asked for",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .reads_text = always,
    .texts = texts,
    .open = open_dialogues,
    .close = close_dialogues,
    .layout = layout,
    .count = count,
    .example = example,
};
