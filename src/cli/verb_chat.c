/* verb_chat.c - `mneme chat`: a dialogue with a trained model, line by line, whose memory is the whole history.
 *
 * A line is a turn: the model reads it in the form it was trained on, answers, and the answer is shown as it is made. Then, while the
 * reader reads, another thread ends the turn (a model that answers in turns writes its memory) and saves the session; the next turn waits
 * for it. So a session's file is always that of a whole number of turns, whenever the program ends. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/threads.h"
#include "cli/chat_lines.h"
#include "cli/chat_sessions.h"
#include "cli/chat_text.h"
#include "cli/cli.h"
#include "cli/model_options.h"
#include "cli/sampling_options.h"
#include "checkpoint/bundle.h"
#include "run/chat_form.h"
#include "run/session.h"

typedef struct chat {
  mn_cli *cli;
  mn_bundle bundle;
  mn_arena *arena;
  mn_chat_form form; /* what stands before and behind messages */
  mn_session *session;
  mn_sampler *sampler;
  mn_session_file kept; /* path NULL: it is not kept */
  int64_t most;
  mn_ids closing; /* the tokens behind an answer */
  mn_lines in;
  bool asks;    /* somebody sits at a terminal */
  bool in_turn; /* the session holds a part of one */
  pthread_t thread;
  bool works; /* the thread does */
  mn_status worked;
  char why[1024];
} chat;

/* ---- the form of messages ---- */
/* As the model was trained on them: of the last stage whose data are dialogues. */
static mn_status read_form(chat *c, const char *dir) {
  MN_TRY(mn_chat_form_read(dir, c->arena, &c->form));
  if (!c->form.trained)
    mn_cli_note(c->cli, "%s was not trained on dialogues: what you say is put to it as \"User: ...\", and it goes on from \"Assistant: \"",
                dir);
  return MN_OK;
}

static mn_status add(const chat *c, const char *text, size_t n, mn_ids *out) {
  return n ? mn_tokenizer_encode(c->bundle.tokenizer, text, n, 0, out) : MN_OK;
}

/* ---- after the answer ---- in another thread, which nothing stops */
static mn_status write_session(void *ctx, const char *path, mn_file_stamp *stamp) { return mn_session_save_over(ctx, path, stamp); }

static mn_status save(chat *c) { return c->kept.path ? mn_session_file_save(&c->kept, write_session, c->session) : MN_OK; }

static mn_status end_turn(chat *c) {
  if (mn_session_has_turns(c->session)) MN_TRY(mn_session_end_turn(c->session, NULL));
  return c->kept.path ? mn_session_file_save_turn(&c->kept, write_session, c->session) : MN_OK;
}

static void *work(void *ctx) {
  chat *c = ctx;
  c->worked = end_turn(c);
  if (c->worked != MN_OK) snprintf(c->why, sizeof c->why, "%s", mn_message());
  return NULL;
}

static mn_status begin_work(chat *c) {
  c->worked = MN_OK;
  c->works = mn_thread_begin(&c->thread, work, c) == 0;
  return c->works ? MN_OK : end_turn(c);
}

static mn_status wait_for_work(chat *c) {
  if (!c->works) return MN_OK;
  pthread_join(c->thread, NULL);
  c->works = false;
  c->in_turn = c->worked != MN_OK;
  mn_session_file_tell(&c->kept);
  return c->worked == MN_OK ? MN_OK : mn_fail(c->worked, "%s", c->why);
}

static mn_status finish(chat *c) {
  MN_TRY(wait_for_work(c));
  return mn_session_file_finish(&c->kept, !c->in_turn, write_session, c->session);
}

/* ---- a turn ---- */
typedef struct answer {
  mn_ids tokens;
  mn_text text;
  const char *stopped_by;
} answer;

static mn_status question(const chat *c, const char *line, size_t n, mn_ids *out) {
  MN_TRY(add(c, c->form.user, strlen(c->form.user), out));
  MN_TRY(add(c, line, n, out));
  MN_TRY(add(c, c->form.end, strlen(c->form.end), out));
  MN_TRY(add(c, c->form.assistant, strlen(c->form.assistant), out));
  const int64_t room = mn_session_room(c->session), needs = (int64_t)(out->len + c->closing.len) + 1;
  if (!out->len) return mn_fail(MN_ERR_CONFIG, "there is nothing to say: the message is empty");
  if (room == MN_LIMIT_NONE || needs <= room) return MN_OK;
  if (mn_session_has_turns(c->session))
    return mn_fail(MN_ERR_CONFIG,
                   "this message takes %zu tokens, and a turn of this model has room for %lld, its answer among them; say less", out->len,
                   (long long)room);
  return mn_session_fits(c->session, needs);
}

/* Where draws stand: no two turns begin alike. */
static int64_t place_of(const chat *c) {
  int64_t turns = 0;
  if (mn_session_has_turns(c->session) && mn_session_turns(c->session, 0, &turns) == MN_OK)
    return turns * mn_session_limit(c->session).tokens + mn_session_position(c->session);
  return mn_session_position(c->session);
}

static void show(const chat *c, const answer *a, size_t from) {
  if (c->cli->json || a->text.len == from) return;
  mn_print_model_text(a->text.data + from, a->text.len - from);
  mn_print_flush();
}

/* How many tokens of the answer's end are those of its closing: 0 until it is whole. */
static bool closes(const chat *c, const answer *a) {
  const size_t n = c->closing.len;
  const int32_t eos = mn_tokenizer_eos(c->bundle.tokenizer);
  if (eos >= 0) return a->tokens.len && a->tokens.data[a->tokens.len - 1] == eos;
  return n && a->tokens.len >= n && !memcmp(a->tokens.data + a->tokens.len - n, c->closing.data, n * sizeof *c->closing.data);
}

static mn_status say(chat *c, const mn_ids *asked, answer *a) {
  mn_decoder decoder = {.tok = c->bundle.tokenizer, .skip_special = true};
  const float *logits;
  const int64_t room = mn_session_room(c->session) - (int64_t)(asked->len + c->closing.len), most = room < c->most ? room : c->most;
  for (size_t i = 0; i < asked->len; i++) mn_sampler_note(c->sampler, asked->data[i]);
  MN_TRY(mn_session_feed(c->session, asked->data, (int64_t)asked->len, &logits));
  const int64_t begin = place_of(c) - mn_session_position(c->session);
  a->stopped_by = room < c->most ? "room" : "length";
  for (int64_t i = 0; i < most && !mn_cli_interrupted(); i++) {
    int32_t token;
    size_t shown = a->text.len, bytes;
    MN_TRY(mn_sampler_next(c->sampler, 0, begin + mn_session_position(c->session), logits, &token));
    MN_TRY(mn_session_feed(c->session, &token, 1, &logits));
    MN_TRY(mn_ids_add(&a->tokens, token));
    if (closes(c, a)) {
      a->stopped_by = "end";
      break;
    }
    if (mn_tokenizer_token(c->bundle.tokenizer, token, &bytes)) MN_TRY(mn_decoder_push(&decoder, token, &a->text));
    show(c, a, shown);
  }
  size_t shown = a->text.len;
  MN_TRY(mn_decoder_finish(&decoder, &a->text));
  show(c, a, shown);
  return mn_text_status(&a->text);
}

/* What stands behind every answer in training, as far as it was not said. */
static mn_status close_answer(chat *c, const answer *a) {
  const bool ended = !strcmp(a->stopped_by, "end"), by_token = mn_tokenizer_eos(c->bundle.tokenizer) >= 0;
  const size_t said = !ended ? 0 : by_token ? 1 : c->closing.len, rest = c->closing.len - said;
  return rest ? mn_session_feed(c->session, c->closing.data + said, (int64_t)rest, NULL) : MN_OK;
}

static void report(chat *c, const answer *a) {
  if (!c->cli->json) {
    mn_print("\n");
    mn_print_flush();
    if (!strcmp(a->stopped_by, "room")) mn_cli_note(c->cli, "the turn has no more room: the answer is cut");
    return;
  }
  json_t *ids = json_array();
  for (size_t i = 0; i < a->tokens.len; i++) json_array_append_new(ids, json_integer(a->tokens.data[i]));
  mn_cli_json_line(c->cli, json_pack("{s:o,s:o,s:s}", "answer", mn_cli_bytes(a->text.data ? a->text.data : "", a->text.len), "tokens", ids,
                                     "stopped_by", a->stopped_by));
}

static mn_status take_turn(chat *c, const char *line, size_t n) {
  mn_ids asked = {0};
  answer a = {.stopped_by = "length"};
  mn_status status = question(c, line, n, &asked);
  if (status != MN_OK && c->asks) { /* a person may say it otherwise */
    mn_cli_note(c->cli, "%s", mn_message());
    mn_ids_free(&asked);
    return MN_OK;
  }
  if (status == MN_OK) {
    c->in_turn = true;
    status = say(c, &asked, &a);
  }
  const bool left = mn_cli_interrupted();
  if (status == MN_OK && !left) {
    report(c, &a);
    status = close_answer(c, &a);
    if (status == MN_OK) {
      c->in_turn = false;
      status = begin_work(c);
    }
  }
  mn_ids_free(&asked);
  mn_ids_free(&a.tokens);
  mn_text_free(&a.text);
  return status;
}

static mn_status talk(chat *c) {
  for (;;) {
    const char *line = NULL;
    int64_t n;
    if (c->asks) mn_print("> "), mn_print_flush();
    MN_TRY(mn_lines_next(&c->in, &line, &n));
    MN_TRY(wait_for_work(c));
    if (mn_cli_interrupted() || n < 0) break;
    if (n && line[n - 1] == '\r') n--;
    if (n) MN_TRY(take_turn(c, line, (size_t)n));
    if (mn_cli_interrupted()) break;
  }
  if (c->asks) mn_print("\n");
  MN_TRY(finish(c));
  if (!mn_cli_interrupted()) return MN_OK;
  return mn_fail(MN_ERR_CANCELLED, "interrupted%s%s%s", c->kept.path ? "; " : "", c->kept.path ? c->kept.path : "",
                 c->kept.path ? " holds all turns that were answered" : "");
}

/* ---- which session ---- */
static mn_status choose_session(chat *c, const char *folder) {
  const mn_cli *cli = c->cli;
  const char *name = mn_cli_get(cli, "session"), *other = mn_cli_get(cli, "fork");
  MN_TRY(mn_cli_only(cli, name != NULL, "a session with a name: --session NAME", "new fork"));
  if (!name) {
    mn_cli_note(cli, "this dialogue is forgotten at its end; --session NAME keeps one");
    return MN_OK;
  }
  if (mn_cli_given(cli, "new") && other) return mn_fail(MN_ERR_CONFIG, "--new and --fork: give one of them");
  MN_TRY(mn_chat_open(folder, name, mn_cli_given(cli, "new") || other, mn_session_state_bytes(c->session), &c->kept));
  if (other) {
    char *from = NULL;
    MN_TRY(mn_chat_path(folder, other, &from));
    mn_status status = mn_session_load(c->session, from);
    free(from);
    return status == MN_OK ? save(c) : mn_context(status, "--fork");
  }
  if (!c->kept.stamp.exists) return MN_OK;
  return mn_context(mn_session_load(c->session, c->kept.path), "--session (another model's session needs another name)");
}

static void greet(const chat *c) {
  int64_t turns = 0;
  const char *path = c->kept.path;
  if (!path) return;
  if (mn_session_has_turns(c->session) && mn_session_turns(c->session, 0, &turns) == MN_OK && turns)
    mn_cli_note(c->cli, "%s goes on after %lld turns", path, (long long)turns);
  else if (!mn_session_has_turns(c->session) && mn_session_position(c->session))
    mn_cli_note(c->cli, "%s goes on after %lld tokens", path, (long long)mn_session_position(c->session));
  else mn_cli_note(c->cli, "%s begins", path);
}

/* A model that reads text and has a template, its own or one that is given. */
static bool has_template(const chat *c) {
  return !mn_model_input(c->bundle.model, "turn_ends") && (c->bundle.speech.chat_template || mn_cli_get(c->cli, "template"));
}

static mn_status open_bundle(chat *c, const char *path) {
  MN_TRY(mn_cli_open(c->cli, path, &c->bundle));
  MN_TRY(mn_bundle_need_tokenizer(&c->bundle, path));
  const char *what = mn_model_input(c->bundle.model, "turn_ends") ? "a model that reads text; this one answers in turns"
                                                                  : "a model with a chat template; --template FILE gives one";
  return mn_cli_only(c->cli, has_template(c), what, "template system with verbose");
}

static mn_status set_up(chat *c, const char *dir, const char *folder) {
  mn_sampling sampling;
  mn_dtype compute;
  MN_TRY(mn_cli_sampling(c->cli, &sampling));
  MN_TRY(mn_cli_int(c->cli, "tokens", 1, INT32_MAX, &c->most));
  MN_TRY(mn_cli_precision(c->cli, "precision", false, &compute));
  MN_TRY(mn_session_new(c->bundle.model, c->bundle.params, &(mn_session_config){.compute = compute}, &c->session));
  if (mn_cli_given(c->cli, "list")) return MN_OK;
  MN_TRY(read_form(c, dir));
  if (mn_tokenizer_eos(c->bundle.tokenizer) >= 0) MN_TRY(mn_ids_add(&c->closing, mn_tokenizer_eos(c->bundle.tokenizer)));
  MN_TRY(add(c, c->form.end, strlen(c->form.end), &c->closing));
  MN_TRY(choose_session(c, folder));
  MN_TRY(mn_sampler_new(&sampling, c->bundle.model->config.vocab_size, &c->sampler));
  return mn_sampler_keep_to(c->sampler, c->bundle.tokenizer);
}

/* Messages in the form of training, or one like it. */
static mn_status by_form(chat *c, const char *dir, const char *folder, bool lists) {
  MN_TRY(set_up(c, dir, folder));
  if (lists) return mn_chat_list(c->cli, folder, c->session);
  greet(c);
  return talk(c);
}

/* In the model's directory, or beside its file. */
static char *folder_of(const char *model) {
  mn_file_info info;
  const size_t n = strlen(model), end = n > 5 && !strcmp(model + n - 5, ".gguf") ? n - 5 : n;
  if (mn_file_stat(model, &info) == MN_OK && info.is_regular) return mn_format("%.*s.sessions", (int)end, model);
  return mn_path_join(model, "sessions");
}

static mn_status run(mn_cli *cli) {
  chat c = {.cli = cli, .arena = mn_arena_new(), .asks = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !cli->json};
  const char *dir = cli->args[0], *given = mn_cli_get(cli, "sessions");
  char *folder = given ? mn_strdup(given) : folder_of(dir);
  const bool lists = mn_cli_given(cli, "list");
  mn_status status = c.arena && folder ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK)
    status = mn_cli_only(cli, !lists, "a dialogue; --list only shows which there are",
                         "session new fork temperature tokens template system with verbose exact context");
  if (status == MN_OK) status = open_bundle(&c, dir);
  if (status == MN_OK) status = has_template(&c) ? mn_chat_text_run(cli, &c.bundle, folder) : by_form(&c, dir, folder, lists);
  const mn_kept_message why = mn_message_keep();
  const mn_status last = finish(&c);
  if (status == MN_OK) status = last;
  else mn_message_restore(&why);
  mn_sampler_free(c.sampler);
  mn_session_free(c.session);
  mn_bundle_close(&c.bundle);
  mn_ids_free(&c.closing);
  mn_arena_free(c.arena);
  mn_lines_free(&c.in);
  mn_session_file_close(&c.kept);
  free(folder);
  return status;
}

static const mn_option options[] = {
    {"session", "NAME", NULL, "keep the dialogue under this name, and go on with it where it is there", 0},
    {"new", NULL, NULL, "the session must not be there yet", 0},
    {"fork", "OTHER", NULL, "the session begins as a copy of this one, and must not be there yet", 0},
    {"list", NULL, NULL, "which sessions there are, in place of a dialogue", 0},
    {"sessions", "FOLDER", NULL, "where sessions are kept (MODEL/sessions; of a GGUF file beside it)", 0},
    {"system", "TEXT", NULL, "what the model is told before the dialogue", 0},
    {"template", "FILE", NULL, "a chat template (Jinja) in place of the model's own", 0},
    {"with", "KEY=VALUE", NULL, "a value that the template asks for, such as enable_thinking=false", MN_OPTION_REPEATS},
    {"verbose", NULL, NULL, "say how many tokens of a dialogue were known and how many are read", 0},
    {"tokens", "N", "512", "how long an answer may be; of a model that answers in turns a turn's room is the end in any case", 0},
    MN_SAMPLING_OPTIONS("0.8"),
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    MN_EXACT_OPTION,
    MN_CONTEXT_OPTION,
    MN_CACHE_OPTION,
    {0}};
static const char *const examples[] = {"mneme chat runs/rxt --session bela --fork anna --temperature 0",
                                       "mneme chat runs/quick --template chat.jinja --system 'Be brief.' --session anna",
                                       "mneme chat runs/rxt --list", NULL};
const mn_verb mn_verb_chat = {
    .name = "chat",
    .purpose = MN_VERB_USE,
    .summary = "talk with a model that remembers the dialogue",
    .usage = "MODEL [--session NAME] [options]",
    .about =
        "MODEL is a directory that mneme train made, one of Hugging Face's, or a GGUF file. A line of standard input is a message, from a "
        "terminal or a pipe; the answer goes to standard output. Messages are put into the form of the model's chat template, or of the dialogues that it was "
        "trained on; of a dialogue in a template's form only what is new is read, and lines that begin with / are commands: /help lists them.\n"
        "A session is saved after every turn: the same command goes on with it. A model that answers in turns (rxt) keeps a memory of fixed "
        "size and no text, others their state. Ctrl-C ends an answer in a terminal, else the dialogue; a turn that was not answered to its end is left out then.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
