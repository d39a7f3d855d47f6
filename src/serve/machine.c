/* machine.c - see grammar.h: running, and which tokens may come. */
#include <stdlib.h>
#include <string.h>

#include "serve/grammar_internal.h"

enum {
  MOST_ITEMS = 2048,
  ITEM_SLOTS = 4096,
  MOST_FRAMES = 1 << 20,
  MOST_DEPTH = 2000,
  MOST_STEPS = 1 << 20,
  MOST_WORK = 1 << 24,
  UNKNOWN = -2,
  DEAD = -1,
  EMPTY = -1,
  NOBODY = -2,               /* where a frame returns to that is none any more */
  MOST_KEPT_ITEMS = 1 << 24, /* of all states */
  MOST_KEPT_STEPS = 16384    /* states with their transitions and masks: more, and all of those are found anew */
};

typedef struct frame { /* of a stack of calls: where its top returns to, and what is below; equal ones are one */
  mn_bytes_node to;
  int32_t below; /* EMPTY: nothing */
} frame;

typedef struct item { /* a node that wants a byte, and its stack */
  mn_bytes_node node;
  int32_t stack;
} item;

typedef struct state {
  item *items; /* sorted */
  int32_t n;
  int32_t held; /* how often; where it is none any more (items NULL), the number that is free behind this one */
  bool whole;
  int32_t *next; /* [256]; NULL: nobody asked */
  uint64_t *mask;
} state;

typedef struct table { /* numbers by hashes, open addressing */
  int32_t *slots;      /* EMPTY: free */
  uint32_t n, cap;
} table;

struct mn_machine {
  const mn_grammar *g;
  frame *frames;
  state *states;
  int32_t n_frames, cap_frames, n_states, cap_states, begin, n_steps, n_masks;
  int32_t free_frame, free_state, n_free_frames, n_free_states; /* numbers below n that are free, each leading to the next */
  int64_t n_items;                                              /* of all states */
  table frame_of, state_of;
  item *found; /* of the set that is being made */
  struct item_slot {
    int32_t found;
    uint32_t round;
  } slots[ITEM_SLOTS]; /* where each of them is, by its hash; of this round */
  uint32_t round;
  int32_t n_found, depth, steps;
  int64_t work; /* nodes and items that were looked at, since it began, a mask was asked for, or it was taken */
  bool found_whole;
  mn_status fault;
  const char *why;
};

static void fail(mn_machine *m, mn_status status, const char *why) {
  if (m->fault == MN_OK) m->fault = status, m->why = why;
}

mn_status mn_machine_status(const mn_machine *m) { return m->fault == MN_OK ? MN_OK : mn_fail(m->fault, "the grammar %s", m->why); }

/* ---- tables ---- */
typedef uint64_t (*hash_of)(const mn_machine *m, int32_t i);

/* A number that is not there, so that equal ones are found by it. */
static void fill(table *t, hash_of hash, const mn_machine *m, int32_t number) {
  uint32_t at = (uint32_t)hash(m, number) & (t->cap - 1);
  while (t->slots[at] != EMPTY) at = (at + 1) & (t->cap - 1);
  t->slots[at] = number;
  t->n++;
}

static void clear(table *t) {
  for (uint32_t i = 0; i < t->cap; i++) t->slots[i] = EMPTY;
  t->n = 0;
}

static bool grow(table *t, hash_of hash, const mn_machine *m) {
  const table old = *t;
  const uint32_t cap = old.cap ? old.cap * 2 : 1024;
  int32_t *slots = mn_alloc(cap * sizeof *slots);
  if (!slots) return false;
  *t = (table){.slots = slots, .cap = cap};
  clear(t);
  for (uint32_t i = 0; i < old.cap; i++)
    if (old.slots[i] != EMPTY) fill(t, hash, m, old.slots[i]);
  free(old.slots);
  return true;
}

static uint64_t hash_of_frame(const mn_machine *m, int32_t i) { return mn_hash_bytes(&m->frames[i], sizeof *m->frames, 1); }
static uint64_t hash_of_items(const item *items, int32_t n, bool whole) {
  return mn_hash_bytes(items, (size_t)n * sizeof *items, 2 + whole);
}
static uint64_t hash_of_state(const mn_machine *m, int32_t i) {
  return hash_of_items(m->states[i].items, m->states[i].n, m->states[i].whole);
}

static int32_t push(mn_machine *m, mn_bytes_node to, int32_t below) {
  const frame f = {to, below};
  if (m->frame_of.n * 2 >= m->frame_of.cap && !grow(&m->frame_of, hash_of_frame, m))
    fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  if (m->fault != MN_OK) return EMPTY;
  uint32_t at = (uint32_t)mn_hash_bytes(&f, sizeof f, 1) & (m->frame_of.cap - 1);
  for (; m->frame_of.slots[at] != EMPTY; at = (at + 1) & (m->frame_of.cap - 1)) {
    const frame *old = &m->frames[m->frame_of.slots[at]];
    if (old->to == to && old->below == below) return m->frame_of.slots[at];
  }
  if (m->n_frames == MOST_FRAMES && !m->n_free_frames) fail(m, MN_ERR_CONFIG, "has calls too deep in calls");
  if (m->n_frames == m->cap_frames && !m->n_free_frames && m->fault == MN_OK) {
    const int32_t cap = m->cap_frames ? m->cap_frames * 2 : 256;
    frame *more = mn_realloc(m->frames, (size_t)cap * sizeof *more);
    if (more) m->frames = more, m->cap_frames = cap;
    else fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  }
  if (m->fault != MN_OK) return EMPTY;
  const int32_t number = m->n_free_frames ? m->free_frame : m->n_frames;
  if (m->n_free_frames) m->n_free_frames--, m->free_frame = m->frames[number].below;
  else m->n_frames++;
  m->frames[number] = f;
  m->frame_of.slots[at] = number;
  m->frame_of.n++;
  return number;
}

/* ---- sets ---- */
static const char too_slow[] = "goes on in so many ways at once that it would take too long to find what may come next";

static void add_item(mn_machine *m, mn_bytes_node node, int32_t stack) {
  uint32_t at = ((uint32_t)node * 2654435761u ^ (uint32_t)stack * 2246822519u) >> 7 & (ITEM_SLOTS - 1);
  for (; m->slots[at].round == m->round; at = (at + 1) & (ITEM_SLOTS - 1)) {
    const item *old = &m->found[m->slots[at].found];
    if (old->node == node && old->stack == stack) return;
  }
  if (m->n_found == MOST_ITEMS) {
    fail(m, MN_ERR_CONFIG, "goes on in too many ways at once");
    return;
  }
  m->slots[at].found = m->n_found, m->slots[at].round = m->round;
  m->found[m->n_found++] = (item){node, stack};
}

/* Adds what is reached from a node without a byte. Depth bounds what calls itself before any byte. */
static void reach(mn_machine *m, mn_bytes_node node, int32_t stack) {
  const int32_t depth = m->depth++;
  if (m->depth > MOST_DEPTH) fail(m, MN_ERR_CONFIG, "has a rule that begins with itself");
  while (m->fault == MN_OK && node != MN_NO_NODE) {
    const grammar_node *n = &m->g->nodes[node];
    if (n->kind == NODE_BYTES) {
      add_item(m, node, stack);
      break;
    }
    if (n->kind == NODE_EITHER) {
      if (n->other != MN_NO_NODE) reach(m, n->other, stack);
      node = n->next;
    } else if (n->kind == NODE_CALL) {
      if (n->next == MN_NO_NODE || m->g->nodes[n->next].kind != NODE_RETURN)
        stack = push(m, n->next, stack); /* else nothing is left to do there */
      node = m->g->rules[n->other];
      if (++m->depth > MOST_DEPTH) fail(m, MN_ERR_CONFIG, "has a rule that begins with itself");
    } else if (stack == EMPTY) {
      m->found_whole = true;
      break;
    } else {
      node = m->frames[stack].to;
      stack = m->frames[stack].below;
    }
    if (++m->steps > MOST_STEPS) fail(m, MN_ERR_CONFIG, "goes around without a byte");
    if (++m->work > MOST_WORK) fail(m, MN_ERR_CONFIG, too_slow);
  }
  m->depth = depth;
}

static int by_node(const void *x, const void *y) {
  const item *a = x, *b = y;
  return a->node != b->node ? (a->node > b->node) - (a->node < b->node) : (a->stack > b->stack) - (a->stack < b->stack);
}

/* Room for one state more. */
static bool make_room(mn_machine *m) {
  if ((m->n_states == MN_MACHINE_STATES && !m->n_free_states) || m->n_items + m->n_found > MOST_KEPT_ITEMS)
    fail(m, MN_ERR_CONFIG, "has more states than are kept");
  if (m->fault != MN_OK || m->n_free_states || m->n_states < m->cap_states) return m->fault == MN_OK;
  const int32_t cap = m->cap_states ? m->cap_states * 2 : 1024;
  state *more = mn_realloc(m->states, (size_t)cap * sizeof *more);
  if (more) m->states = more, m->cap_states = cap;
  else fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  return more != NULL;
}

/* ---- forgetting ---- */
/* What is known of all states but what they are: it is found again where it is asked for. */
static void forget_steps(mn_machine *m) {
  for (int32_t i = 0; i < m->n_states; i++) {
    free(m->states[i].next), free(m->states[i].mask);
    m->states[i].next = NULL, m->states[i].mask = NULL;
  }
  m->n_steps = m->n_masks = 0;
}

static bool is_kept(const mn_machine *m, int32_t i, int32_t at) { return i == at || i == m->begin || m->states[i].held; }

static void forget_frames(mn_machine *m, const bool *stands) {
  clear(&m->frame_of);
  for (int32_t i = 0; i < m->n_frames; i++) {
    if (stands[i]) fill(&m->frame_of, hash_of_frame, m, i);
    else if (m->frames[i].to != NOBODY) {
      m->frames[i] = (frame){NOBODY, m->free_frame};
      m->free_frame = i, m->n_free_frames++;
    }
  }
}

/* All states but the first, this one and those that are held, and the frames that none of these stands on: a long text passes through more than
 * are kept, and comes back to none of them. */
static void forget_states(mn_machine *m, int32_t at) {
  bool *stands = mn_calloc((size_t)m->n_frames + 1, sizeof *stands);
  if (!stands) {
    fail(m, MN_ERR_MEMORY, "needs more memory than there is");
    return;
  }
  forget_steps(m);
  clear(&m->state_of);
  for (int32_t i = 0; i < m->n_states; i++) {
    state *s = &m->states[i];
    if (!s->items) continue;
    if (is_kept(m, i, at)) {
      fill(&m->state_of, hash_of_state, m, i);
      for (int32_t k = 0; k < s->n; k++)
        for (int32_t f = s->items[k].stack; f != EMPTY && !stands[f]; f = m->frames[f].below) stands[f] = true;
      continue;
    }
    m->n_items -= s->n;
    free(s->items);
    *s = (state){.held = m->free_state};
    m->free_state = i, m->n_free_states++;
  }
  forget_frames(m, stands);
  free(stands);
}

/* Where half of what may be kept is there, room for a mask. */
static void make_room_for_mask(mn_machine *m, int32_t at) {
  if (m->n_states - m->n_free_states > MN_MACHINE_STATES / 2 || m->n_frames - m->n_free_frames > MOST_FRAMES / 2 ||
      m->n_items > MOST_KEPT_ITEMS / 2)
    forget_states(m, at);
}

void mn_machine_hold(mn_machine *m, int32_t s) {
  if (s >= 0) m->states[s].held++;
}

void mn_machine_leave(mn_machine *m, int32_t s) {
  if (s >= 0) m->states[s].held--;
}

/* The state of what was found; DEAD: nothing. */
static int32_t intern(mn_machine *m) {
  if (m->fault != MN_OK || (!m->n_found && !m->found_whole)) return DEAD;
  qsort(m->found, (size_t)m->n_found, sizeof *m->found, by_node);
  if (m->state_of.n * 2 >= m->state_of.cap && !grow(&m->state_of, hash_of_state, m))
    fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  if (m->fault != MN_OK) return DEAD;
  uint32_t at = (uint32_t)hash_of_items(m->found, m->n_found, m->found_whole) & (m->state_of.cap - 1);
  for (; m->state_of.slots[at] != EMPTY; at = (at + 1) & (m->state_of.cap - 1)) {
    const state *s = &m->states[m->state_of.slots[at]];
    if (s->n == m->n_found && s->whole == m->found_whole && !memcmp(s->items, m->found, (size_t)s->n * sizeof *s->items))
      return m->state_of.slots[at];
  }
  item *items = make_room(m) ? mn_alloc((size_t)m->n_found * sizeof *items + 1) : NULL;
  if (!items) fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  if (m->fault != MN_OK) return DEAD;
  m->n_items += m->n_found;
  memcpy(items, m->found, (size_t)m->n_found * sizeof *items);
  const int32_t number = m->n_free_states ? m->free_state : m->n_states;
  if (m->n_free_states) m->n_free_states--, m->free_state = m->states[number].held;
  else m->n_states++;
  m->states[number] = (state){.items = items, .n = m->n_found, .whole = m->found_whole};
  m->state_of.slots[at] = number;
  m->state_of.n++;
  return number;
}

static void find_nothing(mn_machine *m) {
  m->n_found = 0, m->found_whole = false, m->depth = m->steps = 0;
  if (++m->round == 0) memset(m->slots, 0, sizeof m->slots), m->round = 1;
}

int32_t mn_machine_next(mn_machine *m, int32_t from, unsigned char byte) {
  if (from < 0 || m->fault != MN_OK) return DEAD;
  if (!m->states[from].next && m->n_steps >= MOST_KEPT_STEPS) forget_steps(m);
  const state *s = &m->states[from];
  if (!s->next) {
    m->n_steps++;
    m->states[from].next = mn_alloc(256 * sizeof *s->next);
    if (!s->next) {
      fail(m, MN_ERR_MEMORY, "needs more memory than there is");
      return DEAD;
    }
    for (int i = 0; i < 256; i++) s->next[i] = UNKNOWN;
  }
  if (s->next[byte] != UNKNOWN) return s->next[byte];
  find_nothing(m);
  if ((m->work += s->n) > MOST_WORK) fail(m, MN_ERR_CONFIG, too_slow);
  for (int32_t i = 0; i < s->n && m->fault == MN_OK; i++) {
    const grammar_node *n = &m->g->nodes[s->items[i].node];
    if (byte >= n->low && byte <= n->high) reach(m, n->next, s->items[i].stack);
  }
  const int32_t to = intern(m); /* which may move the states */
  if (m->fault == MN_OK) m->states[from].next[byte] = to;
  return to;
}

int64_t mn_machine_take_work(mn_machine *m) {
  const int64_t work = m->work;
  m->work = 0;
  return work;
}

bool mn_machine_whole(const mn_machine *m, int32_t s) { return s >= 0 && m->states[s].whole; }
bool mn_machine_goes_on(const mn_machine *m, int32_t s) { return s >= 0 && m->states[s].n > 0; }
int32_t mn_machine_begin(const mn_machine *m) { return m->begin; }

mn_status mn_machine_new(const mn_grammar *g, mn_machine **out) {
  *out = NULL;
  mn_machine *m = mn_calloc(1, sizeof *m);
  if (!m) return MN_ERR_MEMORY;
  m->g = g;
  m->found = mn_alloc(MOST_ITEMS * sizeof *m->found);
  if (!m->found) {
    mn_machine_free(m);
    return MN_ERR_MEMORY;
  }
  find_nothing(m);
  reach(m, g->rules[g->begin], EMPTY);
  m->begin = intern(m);
  mn_status status = mn_machine_status(m);
  if (status == MN_OK && m->begin < 0) status = mn_fail(MN_ERR_CONFIG, "the grammar has no text");
  if (status != MN_OK) mn_machine_free(m);
  else *out = m;
  return status;
}

void mn_machine_free(mn_machine *m) {
  if (!m) return;
  for (int32_t i = 0; i < m->n_states; i++) free(m->states[i].items), free(m->states[i].next), free(m->states[i].mask);
  free(m->states);
  free(m->frames);
  free(m->found);
  free(m->frame_of.slots);
  free(m->state_of.slots);
  free(m);
}

/* ---- tokens ---- */
typedef struct leaf { /* a node of the tree, in preorder */
  uint8_t byte;
  uint16_t depth; /* bytes before it */
  int32_t token;  /* that ends here; -1: none */
  int32_t size;   /* of what hangs on it, with itself */
} leaf;

struct mn_lexicon {
  leaf *leaves;
  int32_t *same; /* [n] another token of the same text; -1: none */
  int32_t n_leaves, n, deepest;
};

typedef struct word {
  const char *text;
  size_t n;
  int32_t token;
} word;

static int by_bytes(const void *x, const void *y) {
  const word *a = x, *b = y;
  const size_t n = a->n < b->n ? a->n : b->n;
  const int c = memcmp(a->text, b->text, n);
  return c ? c : a->n != b->n ? (a->n > b->n) - (a->n < b->n) : (a->token > b->token) - (a->token < b->token);
}

enum { LONGEST_WORD = 512 };

static void plant(mn_lexicon *l, const word *words, int32_t n_words) {
  int32_t path[LONGEST_WORD + 1], depth = 0;
  const word *before = NULL;
  for (int32_t i = 0; i < n_words; i++) {
    const word *w = &words[i];
    int32_t shared = 0;
    while (before && shared < (int32_t)w->n && shared < (int32_t)before->n && w->text[shared] == before->text[shared]) shared++;
    if (before && shared == (int32_t)w->n && shared == (int32_t)before->n) {
      l->same[w->token] = l->leaves[path[depth]].token;
      l->leaves[path[depth]].token = w->token;
      continue;
    }
    for (; depth > shared; depth--) l->leaves[path[depth]].size = l->n_leaves - path[depth];
    for (; depth < (int32_t)w->n; depth++) {
      path[depth + 1] = l->n_leaves;
      l->leaves[l->n_leaves++] = (leaf){.byte = (uint8_t)w->text[depth], .depth = (uint16_t)depth, .token = -1};
    }
    l->leaves[path[depth]].token = w->token;
    if (depth > l->deepest) l->deepest = depth;
    before = w;
  }
  for (; depth > 0; depth--) l->leaves[path[depth]].size = l->n_leaves - path[depth];
}

mn_status mn_lexicon_new(int64_t n, const char *(*text)(void *ctx, int32_t i, size_t *bytes), void *ctx, mn_lexicon **out) {
  *out = NULL;
  mn_lexicon *l = mn_calloc(1, sizeof *l);
  word *words = mn_alloc((size_t)n * sizeof *words + 1);
  size_t bytes = 0;
  int32_t n_words = 0;
  for (int64_t i = 0; words && i < n; i++) {
    word w = {.token = (int32_t)i};
    w.text = text(ctx, (int32_t)i, &w.n);
    if (!w.text || !w.n || w.n > LONGEST_WORD) continue;
    words[n_words++] = w;
    bytes += w.n;
  }
  if (l) l->n = (int32_t)n, l->leaves = mn_alloc(bytes * sizeof *l->leaves + 1), l->same = mn_alloc((size_t)n * sizeof *l->same + 1);
  if (!words || !l || !l->leaves || !l->same || bytes > INT32_MAX) {
    free(words);
    mn_lexicon_free(l);
    return mn_fail(MN_ERR_MEMORY, "out of memory for the vocabulary's tree");
  }
  for (int64_t i = 0; i < n; i++) l->same[i] = -1;
  qsort(words, (size_t)n_words, sizeof *words, by_bytes);
  plant(l, words, n_words);
  free(words);
  *out = l;
  return MN_OK;
}

void mn_lexicon_free(mn_lexicon *l) {
  if (!l) return;
  free(l->leaves);
  free(l->same);
  free(l);
}

const uint64_t *mn_machine_mask(mn_machine *m, int32_t at, const mn_lexicon *l) {
  if (at < 0 || m->fault != MN_OK) return NULL;
  if (m->states[at].mask) return m->states[at].mask;
  m->work = 0;
  make_room_for_mask(m, at);
  if (m->n_masks >= MOST_KEPT_STEPS) forget_steps(m);
  uint64_t *mask = mn_calloc((size_t)(l->n + 63) / 64, sizeof *mask);
  int32_t *path = mn_alloc(((size_t)l->deepest + 2) * sizeof *path);
  if (!mask || !path) fail(m, MN_ERR_MEMORY, "needs more memory than there is");
  if (path) path[0] = at;
  for (int32_t i = 0; i < l->n_leaves && m->fault == MN_OK;) {
    const leaf *x = &l->leaves[i];
    const int32_t to = mn_machine_next(m, path[x->depth], x->byte);
    if (to < 0) {
      i += x->size;
      continue;
    }
    path[x->depth + 1] = to;
    for (int32_t t = x->token; t >= 0; t = l->same[t]) mask[t / 64] |= (uint64_t)1 << (t % 64);
    i++;
  }
  free(path);
  if (m->fault != MN_OK) {
    free(mask);
    return NULL;
  }
  m->n_masks++;
  return m->states[at].mask = mask;
}
