/* batcher.c - see batcher.h. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "serve/batcher_internal.h"
#include "base/threads.h"

/* ---- what becomes of a task ---- */
/* Its reader is kept for the next prompt, empty: what it had read costs nothing any more. */
static void put_aside(mn_batcher *b, mn_task *t) {
  if (t->reader && !b->spare && mn_session_reset(t->reader) == MN_OK) b->spare = t->reader;
  else mn_session_free(t->reader);
  t->reader = NULL;
}

static void end_task(mn_batcher *b, mn_task *t, mn_status status) {
  char why[1024] = "";
  if (status != MN_OK) snprintf(why, sizeof why, "%s", mn_message());
  if (t->promised) b->promised -= t->answers;
  t->promised = false;
  if (t->admitted) b->demand -= t->demand;
  t->admitted = false, t->demand = 0;
  if (t->conversation) t->give(t->ctx, t->conversation, status);
  t->conversation = NULL;
  if (t->whole) free(t->whole), t->whole = NULL, t->prompt = NULL;
  put_aside(b, t);
  mn_clients_end(&b->clients, t->client);
  t->times.over = mn_now();
  t->over(t->ctx, status, why);
}

static void give_back(mn_task *t) {
  mn_conversation *c = t->conversation;
  t->conversation = NULL;
  t->give(t->ctx, c, MN_OK);
}

static void take_out(mn_task **list, const mn_task *t) {
  for (; *list; list = &(*list)->next)
    if (*list == t) {
      *list = t->next;
      return;
    }
}

static void leave_row(mn_batcher *b, row *r) {
  const int64_t i = r - b->rows;
  mn_voice_free(r->voice);
  *r = (row){0};
  b->live--;
  b->left[i] = true;
}

/* Their memory goes back: of all that were left since, at once, and of none where the whole batch went meanwhile. */
static void give_back_rows(mn_batcher *b) {
  bool any = false;
  for (int64_t i = 0; i < b->room; i++) any |= b->left[i];
  if (!any) return; /* nor is there a batch of what makes vectors alone */
  if (mn_session_reset_rows(b->batch, b->left) != MN_OK)
    mn_log_write(MN_LOG_INFO, "rows that were left keep their memory: %s", mn_message());
  memset(b->left, 0, (size_t)b->config.rows * sizeof *b->left);
}

/* All that a task has, wherever it is. */
static void drop(mn_batcher *b, mn_task *t, mn_status status) {
  take_out(&b->waiting, t);
  take_out(&b->reading, t);
  for (int64_t i = 0; i < b->room; i++)
    if (b->rows[i].task == t) leave_row(b, &b->rows[i]);
  end_task(b, t, status);
}

/* ---- rows ---- */
static mn_status new_session(mn_batcher *b, int64_t rows, mn_session **out) {
  const mn_session_config c = {.batch = rows, .prefill = b->config.piece, .program = b->program};
  return mn_session_new(b->config.model, b->config.params, &c, out);
}

/* The batch has `room` rows from now on, which hold all that are full. */
static mn_status resize(mn_batcher *b, int64_t room) {
  mn_session *to = NULL;
  int64_t n = 0;
  mn_status status = room ? new_session(b, room, &to) : MN_OK;
  for (int64_t i = 0; i < b->room && status == MN_OK; i++) {
    if (!b->rows[i].task) continue;
    status = mn_session_copy_row(to, n, b->batch, i);
    if (status == MN_OK && n != i) b->rows[n] = b->rows[i], b->rows[i] = (row){0};
    if (status == MN_OK) n++;
  }
  if (status != MN_OK) {
    mn_session_free(to);
    return status;
  }
  mn_session_free(b->batch);
  b->batch = to;
  b->room = room;
  memset(b->left, 0, (size_t)b->config.rows * sizeof *b->left); /* those are gone */
  return MN_OK;
}

/* Answers that begin with the next pieces: their prompts are as good as read. */
static int64_t soon(const mn_batcher *b) {
  int64_t n = 0;
  for (const mn_task *t = b->reading; t; t = t->next)
    if (t->n_prompt - t->read <= b->config.piece) n += t->answers - t->live;
  return n;
}

/* Rows for all that are live or come soon: a batch that grew one power of two at a time would be copied each time. */
static mn_status find_room(mn_batcher *b, int64_t *at) {
  if (b->live == b->room) {
    const int64_t wanted = b->live + soon(b);
    int64_t more = b->room ? b->room * 2 : 1;
    while (more < wanted) more *= 2;
    MN_TRY(resize(b, more < b->config.rows ? more : b->config.rows));
  }
  for (*at = 0; b->rows[*at].task; ++*at) continue;
  return MN_OK;
}

static mn_status shrink(mn_batcher *b) { /* not at once: who leaves may be followed */
  int64_t room = b->room;
  while (room > 1 && (b->live + soon(b)) * 4 <= room) room /= 2;
  return b->live == 0 ? resize(b, 0) : room < b->room ? resize(b, room) : MN_OK;
}

/* ---- answers ---- */
/* The prompt is read, and logits are what follows it: its answers begin. */
static mn_status begin_answers(mn_batcher *b, mn_task *t, const float *logits) {
  const int64_t position = t->conversation ? mn_conversation_length(t->conversation) : mn_session_position(t->reader);
  for (int64_t k = 0; k < t->answers; k++) {
    row r = {.task = t, .answer = k};
    int64_t at = 0;
    bool whole = true;
    if (t->manner.most == 0) {
      t->ended(t->ctx, k, MN_END_LENGTH);
      continue;
    }
    t->manner.has = b->has;
    mn_status status = mn_voice_new(&t->manner, b->config.tokenizer, b->config.model->config.vocab_size, k, &r.voice);
    if (status == MN_OK) mn_voice_hear(r.voice, t->prompt, t->n_prompt);
    if (status == MN_OK) batcher_draw(&r, position, logits, b->rooms[0]), status = batcher_tell(b, t, &r, position, &whole);
    if (status == MN_OK && !whole) status = find_room(b, &at);
    if (status == MN_OK && !whole)
      status = t->conversation ? mn_conversation_to_row(t->conversation, b->batch, at) : mn_session_copy_row(b->batch, at, t->reader, 0);
    if (status != MN_OK || whole) mn_voice_free(r.voice);
    else b->rows[at] = r, b->left[at] = false, b->live++, t->live++;
    MN_TRY(status);
  }
  return MN_OK;
}

static void lose_all(mn_batcher *b, mn_status status) { /* what is in the batch cannot go on */
  while (b->live > 0)
    for (int64_t i = 0; i < b->room; i++)
      if (b->rows[i].task) drop(b, b->rows[i].task, status);
}

static bool ends(const mn_task *t, int32_t token) {
  for (int i = 0; i < t->manner.n_ends; i++)
    if (t->manner.ends[i] == token) return true;
  return false;
}

/* The last token that was drawn was not fed: a conversation that is kept hears it, too, but for the end of a text that others may follow. */
static mn_status hear_last(mn_batcher *b, mn_task *t) {
  mn_conversation *c = t->conversation;
  if (!t->drawn.len || (t->appends && ends(t, t->drawn.data[t->drawn.len - 1]))) return MN_OK;
  if (mn_conversation_length(c) + 1 > mn_batcher_context(b)) return MN_OK;
  return mn_conversation_feed(c, &t->drawn.data[t->drawn.len - 1], 1, NULL);
}

static mn_status keep_row(mn_batcher *b, mn_task *t, int64_t row_number) {
  MN_TRY(mn_conversation_from_row(t->conversation, b->batch, row_number, t->drawn.data, (int64_t)t->drawn.len - 1, true));
  return hear_last(b, t);
}

static void step(mn_batcher *b) {
  const double began = mn_now();
  const int64_t rows = b->live;
  for (int64_t i = 0; i < b->room; i++) b->tokens[i] = b->rows[i].token, b->count[i] = b->rows[i].task != NULL;
  mn_status status = mn_session_step(b->batch, b->tokens, 1, b->count, &b->logits);
  if (status != MN_OK) {
    lose_all(b, status);
    return;
  }
  batcher_draw_all(b);
  pthread_mutex_lock(&b->mutex);
  int size = 0;
  while ((int64_t)1 << size < rows && size < MN_BATCH_SIZES - 1) size++;
  b->counts.steps++, b->counts.steps_of[size]++, b->counts.row_steps += rows, b->counts.tokens_made += rows;
  b->counts.step_seconds += mn_now() - began;
  pthread_mutex_unlock(&b->mutex);
  for (int64_t i = 0; i < b->room; i++) {
    row *r = &b->rows[i];
    mn_task *t = r->task;
    bool whole = false;
    if (!t) continue;
    status = batcher_tell(b, t, r, mn_session_row_position(b->batch, i), &whole);
    if (status != MN_OK) drop(b, t, status);
    else if (whole) {
      if (t->conversation) status = keep_row(b, t, i);
      leave_row(b, r);
      if (--t->live == 0) end_task(b, t, status);
    }
  }
  status = shrink(b);
  if (status != MN_OK) lose_all(b, status);
  give_back_rows(b);
}

/* ---- a prompt ---- */
static bool sooner(const mn_batcher *b, const mn_task *x, const mn_task *than) {
  const int64_t a = mn_clients_served(&b->clients, x->client), c = mn_clients_served(&b->clients, than->client);
  return a != c ? a < c : x->client != than->client ? false : x->read < than->read;
}

static mn_task *choose(const mn_batcher *b, mn_task *list) {
  mn_task *best = list;
  for (mn_task *t = list; t; t = t->next)
    if (t != best && sooner(b, t, best)) best = t;
  return best;
}

/* The prompt follows what the conversation has read. */
static mn_status append(mn_batcher *b, mn_task *t) {
  const int64_t known = mn_conversation_length(t->conversation), n = t->n_prompt, most = mn_batcher_context(b);
  t->no_room = most != MN_LIMIT_NONE && n > most - known;
  if (t->no_room)
    return mn_fail(MN_ERR_CONFIG, "this model's context is %lld tokens; the session has %lld, and the prompt %lld more", (long long)most,
                   (long long)known, (long long)n);
  t->whole = mn_alloc((size_t)(known + n) * sizeof *t->whole);
  if (!t->whole) return MN_ERR_MEMORY;
  if (known) memcpy(t->whole, mn_conversation_tokens(t->conversation), (size_t)known * sizeof *t->whole);
  memcpy(t->whole + known, t->prompt, (size_t)n * sizeof *t->whole);
  t->prompt = t->whole, t->n_prompt = known + n, t->cached = known;
  return MN_OK;
}

static size_t bytes_at(const mn_batcher *b, int64_t tokens) { return mn_states_bytes_at(b->first, tokens); }

/* What is held of a prompt beside its answers' rows, when it is read, or when a conversation that is kept has heard the answer. Snapshots are
 * those that it has now. */
static size_t bytes_beside(const mn_batcher *b, const mn_task *t, size_t answer) {
  const mn_conversation *c = t->conversation;
  if (!c) return bytes_at(b, t->n_prompt);
  const size_t all = mn_conversation_bytes(c), state = mn_session_held_bytes(mn_conversation_session(c));
  return (t->lends ? bytes_at(b, t->n_prompt) : answer) + (all > state ? all - state : 0);
}

/* Its turn has come: its conversation is there, and what it will have when it comes to its end is known. */
static mn_status take_up(mn_batcher *b, mn_task *t) {
  if (t->taken) return MN_OK;
  t->taken = true;
  if (t->take) {
    MN_TRY(t->take(t->ctx, &t->conversation));
    if (t->appends && !t->begun) MN_TRY(append(b, t));
    else MN_TRY(mn_conversation_prepare(t->conversation, t->prompt, t->n_prompt, &t->cached));
  }
  const int64_t most = b->config.forget ? MN_POSITION_MAX : b->limit.tokens, room = most > t->n_prompt ? most - t->n_prompt : 0;
  const size_t answer = bytes_at(b, t->n_prompt + (t->manner.most < room ? t->manner.most : room));
  t->demand = (size_t)t->answers * answer + bytes_beside(b, t, answer);
  if (!b->config.state_bytes || t->demand <= b->config.state_bytes) return MN_OK;
  const size_t demand = t->demand;
  t->demand = 0;
  return mn_fail(
      MN_ERR_CONFIG,
      "%lld tokens and %lld answers of up to %lld more have a state of %zu bytes, and all streams together may have %zu: ask for less",
      (long long)t->n_prompt, (long long)t->answers, (long long)t->manner.most, demand, b->config.state_bytes);
}

static mn_status begin_reading(mn_batcher *b, mn_task *t) {
  b->promised += t->answers;
  t->promised = true;
  t->read = t->cached;
  if (t->take) return MN_OK;
  if (!b->spare) return new_session(b, 1, &t->reader);
  t->reader = b->spare;
  b->spare = NULL;
  return MN_OK;
}

static void admit(mn_batcher *b) {
  while (b->waiting) {
    mn_task *t = choose(b, b->waiting);
    if (b->live + b->promised + t->answers > b->config.rows) return; /* it is its turn, however small the others are */
    mn_status status = take_up(b, t);
    if (status == MN_OK && b->config.state_bytes && b->demand + t->demand > b->config.state_bytes) return; /* room comes when others end */
    take_out(&b->waiting, t);
    mn_task **end = &b->reading;
    while (*end) end = &(*end)->next;
    t->next = NULL, *end = t;
    t->times.admitted = mn_now();
    if (status == MN_OK) t->admitted = true, b->demand += t->demand, status = begin_reading(b, t);
    if (status != MN_OK) drop(b, t, status);
  }
}

/* n tokens one by one: what is said of each follows from those before it. */
static mn_status read_aloud(mn_batcher *b, mn_task *t, int64_t n, const float **logits) {
  mn_said said;
  for (int64_t i = t->read; i < t->read + n; i++) {
    MN_TRY(mn_session_feed(t->reader, t->prompt + i, 1, logits));
    if (i + 1 == t->n_prompt) break;
    mn_said_of(*logits, b->config.model->config.vocab_size, t->prompt[i + 1], t->manner.top, &said);
    t->heard(t->ctx, &said);
  }
  return MN_OK;
}

enum { ALOUD = 8 /* tokens between two steps of the batch */, LEAST = 16 /* that a piece counts as: all weights are read for it */ };

/* Reads one; what it costs, in tokens of a long piece. */
static int64_t read_piece(mn_batcher *b) {
  mn_task *t = choose(b, b->reading);
  const double began = mn_now();
  const int64_t left = t->n_prompt - t->read, piece = t->heard && b->config.piece > ALOUD ? ALOUD : b->config.piece;
  const int64_t n = left < piece ? left : piece, cost = (t->heard ? n : 1) * LEAST > n ? (t->heard ? n : 1) * LEAST : n;
  const float *logits;
  mn_status status = t->conversation ? mn_conversation_feed(t->conversation, t->prompt + t->read, n, &logits)
                     : t->heard      ? read_aloud(b, t, n, &logits)
                                     : mn_session_feed(t->reader, t->prompt + t->read, n, &logits);
  t->read += n;
  mn_clients_serve(&b->clients, t->client, n);
  pthread_mutex_lock(&b->mutex);
  b->counts.pieces++, b->counts.tokens_read += n, b->counts.piece_seconds += mn_now() - began;
  pthread_mutex_unlock(&b->mutex);
  if (status == MN_OK && t->read < t->n_prompt) return cost;
  if (status == MN_OK && t->conversation) status = mn_conversation_mark(t->conversation);
  if (status == MN_OK) status = begin_answers(b, t, logits);
  if (status == MN_OK && t->lends) give_back(t);
  if (status != MN_OK) {
    drop(b, t, status);
    return cost;
  }
  pthread_mutex_lock(&b->mutex);
  b->counts.tokens_made += t->made; /* the first of each answer */
  pthread_mutex_unlock(&b->mutex);
  take_out(&b->reading, t);
  if (t->live == 0) end_task(b, t, t->conversation ? hear_last(b, t) : MN_OK);
  else {
    /* its rows go on without the reader */
    b->promised -= t->answers;
    t->promised = false;
    put_aside(b, t);
  }
  return cost;
}

/* Between two steps of the batch: of short prompts several, which together cost no more than a long piece. Their rows go on together. */
static void read_pieces(mn_batcher *b) {
  int64_t left = b->config.piece;
  do left -= read_piece(b);
  while (b->reading && left >= LEAST);
}

/* ---- the worker ---- */
static void drop_cancelled(mn_batcher *b) {
  for (mn_task *t = b->waiting, *next; t; t = next) {
    next = t->next;
    if (atomic_load(&t->cancelled)) drop(b, t, mn_fail(MN_ERR_CANCELLED, "the client has left"));
  }
  for (mn_task *t = b->reading, *next; t; t = next) {
    next = t->next;
    if (atomic_load(&t->cancelled)) drop(b, t, mn_fail(MN_ERR_CANCELLED, "the client has left"));
  }
  for (int64_t i = 0; i < b->room; i++)
    if (b->rows[i].task && atomic_load(&b->rows[i].task->cancelled))
      drop(b, b->rows[i].task, mn_fail(MN_ERR_CANCELLED, "the client has left"));
}

static void take_posted(mn_batcher *b) {
  mn_task **end = &b->waiting;
  while (*end) end = &(*end)->next;
  for (mn_task *t = b->posted; t; t = t->next)
    if (mn_clients_begin(&b->clients, t->client) != MN_OK)
      mn_log_write(MN_LOG_WARN, "a client is served without its turn: %s", mn_message());
  *end = b->posted;
  b->posted = NULL, b->posted_end = &b->posted;
}

static void make_calls(mn_batcher *b) { /* with the mutex, which is let go meanwhile */
  while (b->calls) {
    call *c = b->calls;
    b->calls = c->next;
    if (!b->calls) b->calls_end = &b->calls;
    pthread_mutex_unlock(&b->mutex);
    c->fn(c->arg);
    free(c);
    pthread_mutex_lock(&b->mutex);
  }
}

/* Of a prompt that is not all read. One under a name is the shelf's to count. */
static size_t held_by(const mn_task *t) {
  if (t->reader) return mn_session_state_bytes(t->reader);
  return t->lends && t->conversation ? mn_conversation_bytes(t->conversation) : 0;
}

static void count(mn_batcher *b) {
  mn_batcher_counts *c = &b->counts;
  c->waiting = c->reading = 0;
  for (mn_task *t = b->waiting; t; t = t->next) c->waiting++;
  for (mn_task *t = b->reading; t; t = t->next) c->reading++;
  c->rows = b->live, c->room = b->room;
  c->state_bytes = b->batch ? mn_session_state_bytes(b->batch) : 0;
  for (mn_task *t = b->waiting; t; t = t->next) c->state_bytes += held_by(t);
  for (mn_task *t = b->reading; t; t = t->next) c->state_bytes += held_by(t);
}

static bool idle(const mn_batcher *b) { return !b->waiting && !b->reading && !b->live; }

static void *work(void *arg) {
  mn_batcher *b = arg;
  mn_stop_watch(&b->stop);
  pthread_mutex_lock(&b->mutex);
  while (!b->stop) {
    while (!b->stop && !b->posted && !b->calls && idle(b)) {
      count(b);
      pthread_cond_wait(&b->wake, &b->mutex);
    }
    take_posted(b);
    make_calls(b);
    pthread_mutex_unlock(&b->mutex);
    drop_cancelled(b);
    if (b->room && !b->live) resize(b, 0);
    give_back_rows(b);
    admit(b);
    if (b->live) step(b);
    if (b->reading) read_pieces(b);
    pthread_mutex_lock(&b->mutex);
    count(b);
  }
  take_posted(b);
  make_calls(b);
  pthread_mutex_unlock(&b->mutex);
  const mn_status status = mn_fail(MN_ERR_CANCELLED, "the server has ended");
  while (b->waiting) drop(b, b->waiting, status);
  while (b->reading) drop(b, b->reading, status);
  lose_all(b, status);
  return NULL;
}

/* ---- making and ending ---- */
static mn_status open_batcher(mn_batcher *b) {
  mn_batcher_config *c = &b->config;
  if (!c->model) return MN_OK;
  if (c->rows < 1 || c->piece < 1) return mn_fail(MN_ERR_ARG, "a batcher needs a row and a piece of at least 1");
  if (!c->tokenizer) return mn_fail(MN_ERR_ARG, "a batcher needs a tokenizer");
  if (c->model->def->kept)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s says something about a %s, which no request has", c->model->def->name,
                   c->model->def->kept);
  MN_TRY(mn_session_program_new(c->model, c->params, c->compute, c->forget, &b->program));
  MN_TRY(mn_program_first(b->program, &b->first));
  mn_session *one = NULL;
  MN_TRY(new_session(b, 1, &one));
  b->spare = one;
  if (mn_session_has_turns(one))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s answers in turns: mneme chat talks with it", c->model->def->name);
  if (mn_session_channels(one))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s reads frames, and requests are text", c->model->def->name);
  b->limit = mn_session_limit(one);
  b->stream_bytes = mn_session_room_bytes(one);
  const size_t least = 2 * bytes_at(b, 1);
  if (c->state_bytes && c->state_bytes < least)
    return mn_fail(MN_ERR_CONFIG,
                   "a prompt of one token and its answer have a state of %zu bytes, and all streams together may have %zu: allow more",
                   least, c->state_bytes);
  b->rows = mn_calloc((size_t)c->rows, sizeof *b->rows);
  b->tokens = mn_calloc((size_t)c->rows, sizeof *b->tokens);
  b->count = mn_calloc((size_t)c->rows, sizeof *b->count);
  b->left = mn_calloc((size_t)c->rows, sizeof *b->left);
  b->rooms = mn_calloc((size_t)mn_pool_threads(c->params->backend->pool), sizeof *b->rooms);
  if (!b->rows || !b->tokens || !b->count || !b->left || !b->rooms) return MN_ERR_MEMORY;
  for (; b->n_rooms < mn_pool_threads(c->params->backend->pool); b->n_rooms++)
    MN_TRY(mn_sampler_room_new(c->model->config.vocab_size, &b->rooms[b->n_rooms]));
  return mn_sampler_tokens(c->tokenizer, c->model->config.vocab_size, &b->has);
}

mn_status mn_batcher_new(const mn_batcher_config *config, mn_batcher **out) {
  *out = NULL;
  mn_batcher *b = mn_calloc(1, sizeof *b);
  if (!b) return MN_ERR_MEMORY;
  b->config = *config;
  b->posted_end = &b->posted, b->calls_end = &b->calls;
  pthread_mutex_init(&b->mutex, NULL);
  pthread_cond_init(&b->wake, NULL);
  mn_status status = open_batcher(b);
  if (status == MN_OK && mn_thread_begin(&b->thread, work, b) != 0) status = mn_fail(MN_ERR_MEMORY, "no thread for the batcher");
  else b->runs = status == MN_OK;
  if (status != MN_OK) mn_batcher_free(b);
  else *out = b;
  return status;
}

void mn_batcher_free(mn_batcher *b) {
  if (!b) return;
  if (b->runs) {
    pthread_mutex_lock(&b->mutex);
    b->stop = 1;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->mutex);
    pthread_join(b->thread, NULL);
  }
  mn_session_free(b->batch);
  mn_session_free(b->spare);
  mn_program_free(b->program);
  mn_clients_free(&b->clients);
  free(b->rows);
  free(b->tokens);
  free(b->count);
  free(b->left);
  for (int i = 0; i < b->n_rooms; i++) mn_sampler_room_free(b->rooms[i]);
  free(b->rooms);
  free(b->has);
  pthread_cond_destroy(&b->wake);
  pthread_mutex_destroy(&b->mutex);
  free(b);
}

mn_status mn_batcher_post(mn_batcher *b, mn_task *t, bool *full) {
  *full = false;
  if (t->n_prompt < 1) return mn_fail(MN_ERR_ARG, "a prompt has at least one token");
  if (t->answers < 1 || t->answers > b->config.rows)
    return mn_fail(MN_ERR_CONFIG, "%lld answers at once, and this server makes %lld at most", (long long)t->answers,
                   (long long)b->config.rows);
  t->made = t->read = t->live = t->cached = 0;
  t->reader = NULL, t->conversation = NULL, t->whole = NULL, t->promised = t->no_room = false;
  t->next = NULL;
  t->times = (mn_task_times){.posted = mn_now()};
  pthread_mutex_lock(&b->mutex);
  int64_t n = b->counts.waiting;
  for (mn_task *p = b->posted; p; p = p->next) n++;
  *full = n >= b->config.waiting;
  if (!*full) *b->posted_end = t, b->posted_end = &t->next;
  pthread_cond_signal(&b->wake);
  pthread_mutex_unlock(&b->mutex);
  return *full ? mn_fail(MN_ERR_MEMORY, "%lld requests wait already", (long long)n) : MN_OK;
}

void mn_batcher_cancel(mn_batcher *b, mn_task *t) {
  (void)b; /* the worker looks after every step, and without a step there is nothing to cancel */
  atomic_store(&t->cancelled, true);
}

mn_status mn_batcher_call(mn_batcher *b, void (*fn)(void *arg), void *arg) {
  call *c = mn_alloc(sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  *c = (call){NULL, fn, arg};
  pthread_mutex_lock(&b->mutex);
  *b->calls_end = c, b->calls_end = &c->next;
  pthread_cond_signal(&b->wake);
  pthread_mutex_unlock(&b->mutex);
  return MN_OK;
}

int64_t mn_batcher_context(const mn_batcher *b) { return b->config.forget ? MN_LIMIT_NONE : b->limit.tokens; }
size_t mn_batcher_stream_bytes(const mn_batcher *b) { return b->stream_bytes; }
mn_program *mn_batcher_program(const mn_batcher *b) { return b->program; }
int64_t mn_batcher_rows(const mn_batcher *b) { return b->config.rows; }

mn_batcher_counts mn_batcher_count(mn_batcher *b) {
  pthread_mutex_lock(&b->mutex);
  const mn_batcher_counts c = b->counts;
  pthread_mutex_unlock(&b->mutex);
  return c;
}
