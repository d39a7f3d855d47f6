/* clients.h - who was served how much: the counters of tokens by which a batcher chooses (batcher.h). */
#ifndef MN_SERVE_CLIENTS_H
#define MN_SERVE_CLIENTS_H

#include "base/base.h"

typedef struct mn_client {
  uint64_t id;
  int64_t served; /* tokens read and made, from where it began */
  int64_t tasks;  /* that are not over; 0: it is forgotten when room is needed */
} mn_client;

typedef struct mn_clients { /* zero-initialise */
  mn_client *list;
  size_t n, cap;
} mn_clients;

/* One more task of that client. MN_ERR_MEMORY, or MN_OK. */
mn_status mn_clients_begin(mn_clients *c, uint64_t id);
void mn_clients_end(mn_clients *c, uint64_t id);
void mn_clients_serve(mn_clients *c, uint64_t id, int64_t tokens);
int64_t mn_clients_served(const mn_clients *c, uint64_t id);
void mn_clients_free(mn_clients *c);

#endif
