/* clients.c - see clients.h. */
#include "serve/clients.h"

#include <stdlib.h>

static mn_client *find(const mn_clients *c, uint64_t id) {
  for (size_t i = 0; i < c->n; i++)
    if (c->list[i].id == id) return &c->list[i];
  return NULL;
}

/* The least that one with tasks has been served; -1: nobody has any. */
static int64_t least(const mn_clients *c) {
  int64_t out = INT64_MAX;
  for (size_t i = 0; i < c->n; i++)
    if (c->list[i].tasks && c->list[i].served < out) out = c->list[i].served;
  return out == INT64_MAX ? -1 : out;
}

mn_status mn_clients_begin(mn_clients *c, uint64_t id) {
  int64_t from = least(c);
  if (from < 0) c->n = 0, from = 0; /* all begin anew */
  mn_client *client = find(c, id);
  for (size_t i = 0; i < c->n && !client; i++) /* a place that nobody needs */
    if (!c->list[i].tasks && c->list[i].served <= from) c->list[i] = (mn_client){.id = id}, client = &c->list[i];
  if (!client && c->n == c->cap) {
    const size_t cap = c->cap ? c->cap * 2 : 16;
    mn_client *more = mn_realloc(c->list, cap * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    c->list = more, c->cap = cap;
  }
  if (!client) client = &c->list[c->n++], *client = (mn_client){.id = id};
  if (!client->tasks++ && client->served < from) client->served = from; /* nobody saves up while he wants nothing */
  return MN_OK;
}

void mn_clients_end(mn_clients *c, uint64_t id) {
  mn_client *client = find(c, id);
  if (client) client->tasks--;
}

void mn_clients_serve(mn_clients *c, uint64_t id, int64_t tokens) {
  mn_client *client = find(c, id);
  if (client) client->served += tokens;
}

int64_t mn_clients_served(const mn_clients *c, uint64_t id) {
  const mn_client *client = find(c, id);
  return client ? client->served : 0;
}

void mn_clients_free(mn_clients *c) {
  free(c->list);
  *c = (mn_clients){0};
}
