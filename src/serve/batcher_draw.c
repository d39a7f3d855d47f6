/* batcher_draw.c - see batcher_internal.h. A row's draw goes through a whole vocabulary, and no two rows share anything but a machine. */
#include <stdio.h>

#include "serve/batcher_internal.h"

void batcher_draw(row *r, int64_t position, const float *logits, mn_sampler_room *room) {
  r->status = mn_voice_next(r->voice, position, logits, room, &r->token, &r->ending);
  if (r->status != MN_OK) snprintf(r->why, sizeof r->why, "%s", mn_message());
}

/* Row i, or, where answers share a machine, the first of them for all: each thread of the pool draws in a room of its own. */
static void draw_task(void *ctx, int64_t i, int thread) {
  mn_batcher *b = ctx;
  const mn_machine *machine = b->rows[i].task ? b->rows[i].task->manner.machine : NULL;
  for (int64_t k = 0; k < i && machine; k++)
    if (b->rows[k].task && b->rows[k].task->manner.machine == machine) return;
  for (int64_t k = i; k < b->room; k++) {
    row *r = &b->rows[k];
    if (!r->task || (k > i && (!machine || r->task->manner.machine != machine))) continue;
    batcher_draw(r, mn_session_row_position(b->batch, k), b->logits + k * b->config.model->config.vocab_size, b->rooms[thread]);
  }
}

void batcher_draw_all(mn_batcher *b) { mn_pool_run(b->config.params->backend->pool, b->room, draw_task, b); }

mn_status batcher_tell(mn_batcher *b, mn_task *t, const row *r, int64_t position, bool *whole) {
  mn_ending ending = r->ending;
  size_t n;
  *whole = true;
  if (r->status != MN_OK) return mn_fail(r->status, "%s", r->why);
  t->made++;
  if (t->take && !t->lends) MN_TRY(mn_ids_add(&t->drawn, r->token));
  if (t->times.first == 0) t->times.first = mn_now();
  const char *text = mn_voice_text(r->voice, &n);
  t->told(t->ctx, r->answer, mn_voice_said(r->voice), text, n);
  mn_clients_serve(&b->clients, t->client, 1);
  if (ending == MN_END_NOT_YET && !b->config.forget && position + 1 > b->limit.tokens) {
    ending = MN_END_ROOM; /* the token has no place */
    MN_TRY(mn_voice_cut(r->voice));
    text = mn_voice_text(r->voice, &n);
    if (n) t->told(t->ctx, r->answer, NULL, text, n);
  }
  *whole = ending != MN_END_NOT_YET;
  if (*whole) t->ended(t->ctx, r->answer, ending);
  return MN_OK;
}
