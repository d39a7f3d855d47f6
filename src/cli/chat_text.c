/* chat_text.c - `mneme chat` with a model of text that has a chat template: a line is a message, or a command.
 *
 * Before each answer the whole dialogue is put into the template's form, and the conversation (run/conversation.h) reads what is new of it.
 * Where the template writes earlier messages otherwise than they were read (a model's thoughts that it leaves out later), the conversation
 * goes back to where the two part; --verbose says so. */
#include "cli/chat_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/nearest.h"
#include "cli/chat_dialogue.h"
#include "cli/chat_lines.h"
#include "cli/chat_sessions.h"
#include "cli/sampling_options.h"
#include "run/chat.h"
#include "run/conversation.h"

typedef struct chat {
  mn_cli *cli;
  const mn_bundle *bundle;
  const char *folder;
  mn_chat_format *form;
  mn_conversation *stream;
  mn_dialogue said;
  mn_sampling sampling;
  mn_arena *arena;
  const mn_value *values; /* --with */
  mn_dtype compute;
  mn_session_file kept; /* path NULL: it is not kept */
  char *name;           /* of the session */
  int64_t most;
  mn_lines in;
  bool asks, verbose, over;
  bool in_turn; /* the stream holds a part of one */
} chat;

/* ---- an answer ---- */
typedef struct answer {
  mn_ids tokens;
  mn_text text, raw; /* without and with special tokens */
  size_t shown;
  const char *stopped_by;
  mn_conversation_step step;
} answer;

static void answer_free(answer *a) {
  mn_ids_free(&a->tokens);
  mn_text_free(&a->text);
  mn_text_free(&a->raw);
}

/* How many bytes at the end may be the beginning of the text that ends answers; all of it: it has ended. */
static size_t held_back(const chat *c, const answer *a) {
  const char *end = mn_chat_end_text(c->form);
  const size_t n = strlen(end);
  for (size_t k = n < a->text.len ? n : a->text.len; k > 0; k--)
    if (!memcmp(a->text.data + a->text.len - k, end, k)) return k;
  return 0;
}

static void show(const chat *c, answer *a, bool all) {
  const size_t to = a->text.len - (all ? 0 : held_back(c, a));
  if (to > a->shown && !c->cli->json) {
    mn_print_model_text(a->text.data + a->shown, to - a->shown);
    mn_print_flush();
  }
  if (to > a->shown) a->shown = to;
}

/* Text of a token, in both ways. */
static mn_status hear(const chat *c, answer *a, int32_t token, mn_decoder *shown, mn_decoder *raw) {
  size_t bytes;
  MN_TRY(mn_ids_add(&a->tokens, token));
  if (!mn_tokenizer_token(c->bundle->tokenizer, token, &bytes)) return MN_OK;
  MN_TRY(mn_decoder_push(raw, token, &a->raw));
  return mn_chat_ends(c->form, token) ? MN_OK : mn_decoder_push(shown, token, &a->text);
}

static mn_status draw(chat *c, const mn_ids *asked, const float *logits, answer *a) {
  mn_decoder shown = {.tok = c->bundle->tokenizer, .skip_special = true}, raw = {.tok = c->bundle->tokenizer};
  const size_t end = strlen(mn_chat_end_text(c->form));
  const int64_t room = mn_session_room(mn_conversation_session(c->stream)), most = room < c->most ? room : c->most;
  mn_sampler *sampler = NULL;
  mn_status status = mn_sampler_new(&c->sampling, c->bundle->model->config.vocab_size, &sampler);
  if (status == MN_OK) status = mn_sampler_keep_to(sampler, c->bundle->tokenizer);
  for (size_t i = 0; i < asked->len && status == MN_OK; i++) mn_sampler_note(sampler, asked->data[i]);
  a->stopped_by = room < c->most ? "room" : "length";
  for (int64_t i = 0; i < most && status == MN_OK; i++) {
    int32_t token;
    if (mn_cli_interrupted()) {
      a->stopped_by = "interrupt";
      break;
    }
    status = mn_sampler_next(sampler, 0, mn_conversation_length(c->stream), logits, &token);
    if (status == MN_OK) status = mn_conversation_feed(c->stream, &token, 1, &logits);
    if (status == MN_OK) status = hear(c, a, token, &shown, &raw);
    if (status != MN_OK) break;
    const bool ended = mn_chat_ends(c->form, token), spelled = end && held_back(c, a) == end;
    if (ended || spelled) a->stopped_by = "end";
    if (spelled) a->text.len -= end;
    if (ended || spelled) break;
    show(c, a, false);
  }
  if (status == MN_OK) status = mn_decoder_finish(&shown, &a->text);
  if (status == MN_OK) status = mn_decoder_finish(&raw, &a->raw);
  if (status == MN_OK) show(c, a, true);
  mn_sampler_free(sampler);
  return status == MN_OK ? mn_text_status(&a->text) : status;
}

static void remark(const chat *c, const mn_conversation_step *s) {
  const long long known = (long long)s->known, kept = (long long)s->kept, gone = (long long)s->gone;
  if (!c->verbose) return;
  if (gone > 0 && s->known < s->kept + s->gone)
    mn_cli_note(c->cli, "the template writes what was said otherwise from token %lld on: %lld tokens are taken back", known, gone);
  mn_cli_note(c->cli, "%lld tokens were known, %lld are read", kept, (long long)s->fed);
}

static mn_status fits(const chat *c, const mn_ids *asked) {
  const mn_limit limit = mn_session_limit(mn_conversation_session(c->stream));
  if (limit.tokens == MN_LIMIT_NONE || (int64_t)asked->len < limit.tokens) return MN_OK;
  return mn_fail(
      MN_ERR_CONFIG,
      "the dialogue takes %zu tokens with this message, and %s is %lld: say less, take turns back (/undo) or begin anew (/reset)",
      asked->len, limit.key ? limit.key : "the room of this model", (long long)limit.tokens);
}

static mn_status write_session(void *ctx, const char *path, mn_file_stamp *stamp) {
  const chat *c = ctx;
  mn_text note = {0};
  mn_status status = mn_dialogue_write(&c->said, &note);
  if (status == MN_OK) status = mn_conversation_save_over(c->stream, path, note.data, stamp);
  mn_text_free(&note);
  return status;
}

static mn_status take_name(chat *c) {
  free(c->name);
  return (c->name = mn_chat_name(c->kept.path)) ? MN_OK : MN_ERR_MEMORY;
}

static mn_status save(chat *c) {
  if (!c->kept.path) return MN_OK;
  MN_TRY(mn_session_file_save(&c->kept, write_session, c));
  return take_name(c); /* another one, where somebody else has written the file */
}

/* After a turn, or one taken back. */
static mn_status save_turn(chat *c) {
  if (!c->kept.path) return MN_OK;
  MN_TRY(mn_session_file_save_turn(&c->kept, write_session, c));
  mn_session_file_tell(&c->kept);
  return take_name(c);
}

static void report(const chat *c, const answer *a) {
  if (!c->cli->json) {
    mn_print("\n");
    mn_print_flush();
    if (!strcmp(a->stopped_by, "room"))
      mn_cli_note(c->cli, "there is no more room: the answer is cut; take turns back (/undo) or begin anew (/reset)");
    return;
  }
  json_t *ids = json_array();
  for (size_t i = 0; i < a->tokens.len; i++) json_array_append_new(ids, json_integer(a->tokens.data[i]));
  mn_cli_json_line(c->cli,
                   json_pack("{s:o,s:o,s:s,s:I,s:I}", "answer", mn_cli_bytes(a->text.data ? a->text.data : "", a->text.len), "tokens", ids,
                             "stopped_by", a->stopped_by, "known", (json_int_t)a->step.kept, "read", (json_int_t)a->step.fed));
}

/* What the message and all before it are to the model. */
static mn_status question(const chat *c, const char *line, size_t n, mn_text *text, mn_ids *out) {
  mn_arena *arena = mn_arena_new();
  mn_chat_request r = {.values = c->values, .answers = true};
  const int64_t known = c->said.n ? c->said.turns[c->said.n - 1].tokens : 0;
  const mn_chat_known all = {c->said.text.data, c->said.text.len, mn_conversation_tokens(c->stream), known};
  const bool stands = known > 0 && mn_conversation_length(c->stream) == known;
  mn_status status = arena ? mn_dialogue_messages(&c->said, line, n, arena, &r.messages) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_chat_tokens_on(c->form, &r, stands ? &all : NULL, text, out);
  if (status == MN_OK && !out->len) status = mn_fail(MN_ERR_CONFIG, "the template makes nothing of this message");
  if (status == MN_OK) status = fits(c, out);
  mn_arena_free(arena);
  return status;
}

/* Text without zero bytes, which a model may say and no message holds. */
static char *plain_copy(const char *s, size_t n) {
  char *copy = mn_alloc(n + 1);
  size_t k = 0;
  for (size_t i = 0; copy && i < n; i++)
    if (s[i]) copy[k++] = s[i];
  if (copy) copy[k] = 0;
  return copy;
}

/* The turn is over: the dialogue has it. */
static mn_status keep_turn(chat *c, const char *line, size_t n, const mn_text *asked, const answer *a) {
  char *user = plain_copy(line, n), *text = plain_copy(a->text.data ? a->text.data : "", a->text.len);
  c->said.text.len = 0;
  mn_text_add_bytes(&c->said.text, asked->data, asked->len);
  if (a->raw.len) mn_text_add_bytes(&c->said.text, a->raw.data, a->raw.len);
  MN_TRY(mn_dialogue_add(&c->said, user, text, mn_conversation_length(c->stream)));
  MN_TRY(mn_text_status(&c->said.text));
  MN_TRY(mn_conversation_mark(c->stream));
  return save_turn(c);
}

static mn_status take_turn(chat *c, const char *line, size_t n) {
  mn_ids asked = {0};
  mn_text text = {0};
  answer a = {.stopped_by = "interrupt"};
  const float *logits;
  const int64_t before = mn_conversation_length(c->stream);
  mn_status status = question(c, line, n, &text, &asked);
  if (status != MN_OK && status != MN_ERR_MEMORY && c->asks) { /* a person may say it otherwise */
    mn_cli_note(c->cli, "%s", mn_message());
    mn_ids_free(&asked);
    mn_text_free(&text);
    return MN_OK;
  }
  c->in_turn = status == MN_OK;
  if (c->asks) mn_cli_part_begin();
  if (status == MN_OK) status = mn_conversation_become(c->stream, asked.data, (int64_t)asked.len, &a.step, &logits);
  if (status == MN_OK) remark(c, &a.step);
  if (status == MN_OK) status = mn_conversation_mark(c->stream);
  const bool read = status == MN_OK;
  if (read) status = draw(c, &asked, logits, &a);
  const bool stopped = c->asks && mn_cli_part_end();
  if (status == MN_ERR_CANCELLED && stopped) status = MN_OK; /* while it read or said something */
  if (status == MN_OK && !mn_cli_interrupted()) {
    c->in_turn = false;
    if (read) report(c, &a);
    else mn_cli_note(c->cli, "the message was not read to its end, and is forgotten");
    const int64_t stands = a.step.fed && a.step.kept < before ? a.step.kept : before; /* the template may write earlier turns otherwise */
    if (!read && mn_conversation_length(c->stream) > stands) status = mn_conversation_back(c->stream, stands);
    if (read) status = keep_turn(c, line, n, &text, &a);
  }
  answer_free(&a);
  mn_ids_free(&asked);
  mn_text_free(&text);
  return status;
}

/* ---- commands ---- */
static mn_status done(const chat *c, const char *command, const char *fmt, const char *name) {
  char said[300];
  if (c->cli->json) {
    mn_cli_json_line(c->cli,
                     json_pack("{s:s,s:I,s:o}", "command", command, "turns", (json_int_t)c->said.n, "session", mn_cli_text(c->name)));
    return MN_OK;
  }
  snprintf(said, sizeof said, fmt, name, (long long)c->said.n);
  mn_cli_note(c->cli, "%s", said);
  return MN_OK;
}

static mn_status undo(chat *c, const char *many) {
  char *end = NULL;
  const long long n = *many ? strtoll(many, &end, 10) : 1;
  if (*many && (*end || n < 1)) return mn_fail(MN_ERR_CONFIG, "/undo takes a number of turns, not '%.40s'", many);
  if (n > c->said.n) return mn_fail(MN_ERR_CONFIG, "there are %lld turns, not %lld", (long long)c->said.n, n);
  mn_dialogue_cut(&c->said, c->said.n - n);
  const int64_t tokens = c->said.n ? c->said.turns[c->said.n - 1].tokens : 0;
  const uint64_t fed = mn_conversation_fed(c->stream);
  if (tokens <= mn_conversation_length(c->stream)) MN_TRY(mn_conversation_back(c->stream, tokens));
  if (c->verbose) mn_cli_note(c->cli, "%lld tokens are read again", (long long)(mn_conversation_fed(c->stream) - fed));
  MN_TRY(save_turn(c));
  return done(c, "undo", "%stook back, %lld turns are left", "");
}

static mn_status reset(chat *c) {
  mn_dialogue_cut(&c->said, 0);
  MN_TRY(mn_conversation_back(c->stream, 0));
  MN_TRY(save_turn(c));
  return done(c, "reset", "%sthe dialogue begins anew", "");
}

/* From now on the session has this name, which nothing has yet. */
static mn_status rename_session(chat *c, const char *command, const char *name) {
  if (!*name) return mn_fail(MN_ERR_CONFIG, "/%s wants the name of a session", command);
  if (c->name && !strcmp(name, c->name)) return mn_fail(MN_ERR_CONFIG, "%s is this session: choose another name", name);
  mn_session_file other;
  MN_TRY(mn_chat_open(c->folder, name, true, 0, &other));
  mn_status status = mn_session_file_save(&other, write_session, c);
  if (status != MN_OK) {
    mn_session_file_close(&other);
    return status;
  }
  mn_session_file_close(&c->kept);
  c->kept = other;
  MN_TRY(take_name(c));
  return done(c, command, "goes on as session %s, which holds %lld turns", c->name);
}

static mn_status keep(chat *c, const char *name) {
  if (*name && (!c->name || strcmp(name, c->name) != 0)) return rename_session(c, "save", name);
  if (!c->kept.path) return mn_fail(MN_ERR_CONFIG, "/save wants the name of a session");
  MN_TRY(save(c));
  return done(c, "save", "session %s is saved, with %lld turns", c->name);
}

static const char help[] = "/undo [N]    takes back the last turn, or the last N\n"
                           "/fork NAME   goes on as session NAME; the one so far stays as it is\n"
                           "/save [NAME] saves the session, under this name from now on\n"
                           "/reset       forgets the dialogue\n"
                           "/sessions    lists the sessions there are\n"
                           "/quit        ends\n"
                           "//text       says \"/text\"\n"
                           "Ctrl-C ends an answer; between answers it ends the program.\n";

static mn_status command(chat *c, const char *line, size_t n) {
  static const char *const names[] = {"undo", "fork", "save", "reset", "sessions", "help", "quit"};
  char word[32], rest[256];
  const size_t length = strcspn(line, " "), at = length < n ? length + strspn(line + length, " ") : n;
  snprintf(word, sizeof word, "%.*s", (int)(length < n ? length : n), line);
  snprintf(rest, sizeof rest, "%.*s", (int)(n - at < 255 ? n - at : 255), line + at);
  for (size_t k = strlen(rest); k > 0 && rest[k - 1] == ' '; k--) rest[k - 1] = 0;
  const bool bare = !*rest;
  if (!strcmp(word, "undo")) return undo(c, rest);
  if (!strcmp(word, "fork")) return rename_session(c, "fork", rest);
  if (!strcmp(word, "save")) return keep(c, rest);
  if (bare && !strcmp(word, "reset")) return reset(c);
  if (bare && !strcmp(word, "sessions")) return mn_chat_list(c->cli, c->folder, NULL);
  if (bare && !strcmp(word, "quit")) return c->over = true, MN_OK;
  if (bare && !strcmp(word, "help")) {
    if (c->cli->json) return mn_cli_json_line(c->cli, json_pack("{s:s}", "help", help)), MN_OK;
    mn_print("%s", help);
    mn_print_flush();
    return MN_OK;
  }
  const char *near = mn_nearest(word, names, 7);
  if (near && !strcmp(near, word)) return mn_fail(MN_ERR_CONFIG, "/%s takes nothing behind it", word);
  return mn_fail(MN_ERR_CONFIG, "there is no command /%s%s%s%s; /help lists them, and //%s says it as a message", word,
                 near ? " (did you mean /" : "", near ? near : "", near ? "?)" : "", word);
}

/* ---- the dialogue ---- */
static mn_status one_line(chat *c, const char *line, size_t n) {
  char *copy = plain_copy(line, n); /* the buffer moves on */
  mn_status status = MN_ERR_MEMORY;
  if (!copy) return status;
  n = strlen(copy);
  if (*copy == '/' && copy[1] != '/') status = command(c, copy + 1, n - 1);
  else if (*copy == '/') status = take_turn(c, copy + 1, n - 1);
  else status = n ? take_turn(c, copy, n) : MN_OK;
  if (status != MN_OK && status != MN_ERR_MEMORY && *copy == '/' && copy[1] != '/' && c->asks) {
    mn_cli_note(c->cli, "%s", mn_message());
    status = MN_OK;
  }
  free(copy);
  return status;
}

static mn_status talk(chat *c) {
  while (!c->over) {
    const char *line = NULL;
    int64_t n;
    if (c->asks) mn_print("> "), mn_print_flush();
    MN_TRY(mn_lines_next(&c->in, &line, &n));
    if (mn_cli_interrupted() || n < 0) break;
    if (n && line[n - 1] == '\r') n--;
    MN_TRY(one_line(c, line, (size_t)n));
    if (mn_cli_interrupted()) break;
  }
  if (c->asks && !c->over) mn_print("\n");
  MN_TRY(mn_session_file_finish(&c->kept, !c->in_turn, write_session, c));
  if (!mn_cli_interrupted()) return MN_OK;
  return mn_fail(MN_ERR_CANCELLED, "interrupted%s%s%s", c->kept.path ? "; " : "", c->kept.path ? c->kept.path : "",
                 c->kept.path ? " holds all turns that were answered" : "");
}

/* ---- which session ---- */
static mn_status open_session(chat *c, const char *path) {
  mn_text note = {0};
  const mn_session_config how = {.compute = c->compute};
  mn_status status = mn_conversation_open(c->bundle->model, c->bundle->params, &how, NULL, path, &note, &c->stream);
  if (status == MN_OK) status = mn_dialogue_read(path, &note, mn_conversation_length(c->stream), &c->said);
  mn_text_free(&note);
  return status;
}

static mn_status choose_session(chat *c) {
  const mn_cli *cli = c->cli;
  const char *name = mn_cli_get(cli, "session"), *other = mn_cli_get(cli, "fork");
  const mn_session_config how = {.compute = c->compute};
  MN_TRY(mn_cli_only(cli, name != NULL, "a session with a name: --session NAME", "new fork"));
  if (!name) {
    mn_cli_note(cli, "this dialogue is forgotten at its end; --session NAME or /save NAME keep one");
    return mn_conversation_new(c->bundle->model, c->bundle->params, &how, NULL, &c->stream);
  }
  if (mn_cli_given(cli, "new") && other) return mn_fail(MN_ERR_CONFIG, "--new and --fork: give one of them");
  MN_TRY(mn_chat_open(c->folder, name, mn_cli_given(cli, "new") || other, 0, &c->kept));
  MN_TRY(take_name(c));
  if (other) {
    char *from = NULL;
    MN_TRY(mn_chat_path(c->folder, other, &from));
    mn_status status = open_session(c, from);
    free(from);
    return status == MN_OK ? save(c) : mn_context(status, "--fork");
  }
  if (c->kept.stamp.exists) return mn_context(open_session(c, c->kept.path), "--session (another model's session needs another name)");
  return mn_conversation_new(c->bundle->model, c->bundle->params, &how, NULL, &c->stream);
}

/* --system: of a session that goes on it takes the place of the one it had. */
static mn_status take_system(chat *c) {
  const char *text = mn_cli_get(c->cli, "system");
  if (!text) return MN_OK;
  if (c->said.n && (!c->said.system || strcmp(text, c->said.system) != 0))
    mn_cli_note(c->cli, "the system prompt is another one now: the dialogue is read again from there");
  char *copy = mn_strdup(text);
  if (!copy) return MN_ERR_MEMORY;
  free(c->said.system);
  c->said.system = copy;
  return MN_OK;
}

/* --with KEY=VALUE: the right side is YAML. */
static mn_status take_values(chat *c) {
  const mn_value *root = mn_value_map(c->arena, 0, NULL, NULL);
  for (int i = 0; root; i++) {
    const char *one = mn_cli_nth(c->cli, "with", i);
    if (!one) break;
    const size_t n = strcspn(one, "=");
    const char *key = mn_arena_format(c->arena, "%.*s", (int)n, one);
    if (!key) return MN_ERR_MEMORY;
    if (!one[n] || !n) return mn_fail(MN_ERR_CONFIG, "--with %.60s: write KEY=VALUE", one);
    if (!mn_template_mentions(mn_chat_format_template(c->form), key))
      return mn_fail(MN_ERR_CONFIG, "--with %.60s has no effect: this model's chat template asks for no '%.60s'", one, key);
    MN_TRY(mn_context(mn_value_set(c->arena, root, one, &root), "--with"));
  }
  c->values = root;
  return root ? MN_OK : MN_ERR_MEMORY;
}

static mn_status set_up(chat *c) {
  const mn_cli *cli = c->cli;
  MN_TRY(mn_cli_sampling(cli, &c->sampling));
  MN_TRY(mn_cli_int(cli, "tokens", 1, INT32_MAX, &c->most));
  MN_TRY(mn_cli_precision(cli, "precision", false, &c->compute));
  c->verbose = mn_cli_given(cli, "verbose");
  MN_TRY(mn_chat_format_new(c->bundle, mn_cli_get(cli, "template"), &c->form));
  MN_TRY(take_values(c));
  MN_TRY(choose_session(c));
  MN_TRY(take_system(c));
  if (c->kept.path && c->said.n) mn_cli_note(cli, "%s goes on after %lld turns", c->kept.path, (long long)c->said.n);
  else if (c->kept.path) mn_cli_note(cli, "%s begins", c->kept.path);
  if (c->asks) mn_cli_note(cli, "/help lists the commands");
  return MN_OK;
}

mn_status mn_chat_text_run(mn_cli *cli, const mn_bundle *bundle, const char *folder) {
  if (mn_cli_given(cli, "list")) return mn_chat_list(cli, folder, NULL);
  chat c = {.cli = cli, .bundle = bundle, .folder = folder, .arena = mn_arena_new()};
  c.asks = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !cli->json;
  mn_status status = c.arena ? set_up(&c) : MN_ERR_MEMORY;
  if (status == MN_OK) status = talk(&c);
  const mn_kept_message why = mn_message_keep();
  const mn_status last = mn_session_file_finish(&c.kept, !c.in_turn, write_session, &c);
  if (status == MN_OK) status = last;
  else mn_message_restore(&why);
  mn_chat_format_free(c.form);
  mn_conversation_free(c.stream);
  mn_dialogue_free(&c.said);
  mn_lines_free(&c.in);
  mn_arena_free(c.arena);
  free(c.name);
  mn_session_file_close(&c.kept);
  return status;
}
