/* state.h - what a stream remembers: named tensors on a backend, a row for each stream of a batch, and where each row stands.
 *
 * States are memory and nothing else: they know no model and no plan. A program (program.h) says which there are, gives their
 * first values and runs on any of them, so that copying, going back and putting rows together are copies and compile nothing.
 * The first state is "position" (i32 [B]): how many tokens each row has seen; the host keeps the same numbers, so that asking
 * for them costs no look at the backend. Everything that is written here ends in the backend's memory in order: what a run
 * reads next is what the last call wrote.
 *
 * Caches that are only appended to (mn_state_info.appended) lie in room of their own, which costs memory as far as it was written
 * (mn_backend_room): a row in use ends at its position, and whatever stands behind it is never read, copied or saved. A clone of one
 * stream shares the pages of its caches with what it was made from until one of them writes there (state_share.c). */
#ifndef MN_RUN_STATE_H
#define MN_RUN_STATE_H

#include "backend/backend.h"
#include "format/safetensors.h"
#include "nn/scope.h"

typedef struct mn_states mn_states;

/* Memory for n states, all zero: every row stands at 0. Each shape begins with `batch`, or with a multiple of it: as many rows for
 * each stream, side by side. info[0] is "position". The names and texts are copied. */
mn_status mn_states_new(mn_backend *b, int64_t batch, int n, const mn_state_info *info, mn_states **out);
void mn_states_free(mn_states *s); /* may be NULL */

int mn_states_count(const mn_states *s);
int64_t mn_states_batch(const mn_states *s);
const mn_state_info *mn_states_info(const mn_states *s, int i);
int mn_states_find(const mn_states *s, const char *name); /* -1: none */
size_t mn_states_bytes(const mn_states *s, int i);        /* of its shape: the room that there is */
size_t mn_states_room_bytes(const mn_states *s);          /* of all of them */
/* What must be kept to go on: of caches the rows in use. Pages that are shared count for each. */
size_t mn_states_used_bytes(const mn_states *s);
/* The memory that goes with it: pages that n of them share count an n-th for each. */
size_t mn_states_held_bytes(const mn_states *s);
/* What one stream would use at a position; and of a state as it is described, all its rows. */
size_t mn_state_bytes_at(const mn_state_info *info, int64_t position);
size_t mn_states_bytes_at(const mn_states *s, int64_t position);
void *mn_states_data(const mn_states *s, int i); /* on the backend */
/* A number that no other states of this process have, for whoever keeps what it bound them to. */
uint64_t mn_states_id(const mn_states *s);

/* Tokens that each row has seen, [batch]. */
const int64_t *mn_states_position(const mn_states *s);
/* A run has moved row b by tokens[b] (NULL: every row by `all`): the backend's position says so already. */
void mn_states_moved(mn_states *s, const int32_t *tokens, int64_t all);
/* The same of rows where rows[b] is true: they began a stream in that run, before they moved. */
void mn_states_begun(mn_states *s, const bool *rows);

/* ---- copies. All are between states of the same names, types and rows' shapes; else MN_ERR_ARG names the difference. The two may lie
 * on two backends (mn_backend_transfer) ---- */
mn_status mn_states_clone(const mn_states *from, mn_states **out);
mn_status mn_states_clone_on(mn_backend *b, const mn_states *from, mn_states **out); /* the same on another backend */
mn_status mn_states_copy(mn_states *to, const mn_states *from);                      /* of the same batch */
/* The same where a run has written into `to` and then did not count (no mn_states_moved): what it wrote behind the rows' positions is gone, too. */
mn_status mn_states_put_back(mn_states *to, const mn_states *from);
/* Rows where rows[b] is true (NULL: all) begin anew: they are given row b of `first`, or row 0 where `first` has one row. */
mn_status mn_states_reset(mn_states *s, const mn_states *first, const bool *rows);
/* Row i of `to` becomes row rows[i] of `from`, for every row of `to`: batches are put together, thinned out, repeated. `to`
 * and `from` differ. */
mn_status mn_states_select(mn_states *to, const mn_states *from, const int64_t *rows);
/* One row. What stands in a cache behind the row's position stays as it was. */
mn_status mn_states_copy_row(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row);
/* The same where both rows have the same first `known` tokens: of caches only what stands behind them is copied. */
mn_status mn_states_copy_row_from(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row, int64_t known);

/* ---- the host's side ---- */
mn_status mn_states_get(const mn_states *s, int i, void *host); /* all of its room */
/* As far as it is in use: *host, which is the caller's to free, and its shape, of a cache with as many rows as the longest stream has. */
mn_status mn_states_take(const mn_states *s, int i, mn_shape *shape, void **host);
mn_status mn_states_put(mn_states *s, int i, const void *host); /* positions too: the host's copy follows */

/* The memory of mn_states_data was written by others: the host's positions follow it. */
mn_status mn_states_look(mn_states *s);

/* ---- files ---- (state_file.c) Whole or not at all: the tensors as far as they are in use, their digest, the rows' positions, and the
 * caller's metadata. What is not finite is not saved. stamp: as for mn_st_writer_save_over. */
typedef struct mn_states_meta {
  const char *key, *value; /* value NULL: left out */
} mn_states_meta;
mn_status mn_states_save(const mn_states *s, const char *path, mn_file_stamp *stamp, int n_meta, const mn_states_meta *meta);
/* Every tensor there, of its type and shape (caches: of as many rows as are in use, or more), finite, as the digest says, and none
 * besides; every row's position as the metadata says and within [0, MN_POSITION_MAX]. The states are unchanged when it fails. The
 * metadata is the caller's to look at first. */
mn_status mn_states_load(mn_states *s, const mn_st *file);

#endif
