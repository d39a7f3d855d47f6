/* dialogues.c - made-up dialogues, and what a model makes of them: in each turn somebody is said to have a colour, or it is asked what
 * colour somebody has who was named one to four turns before.
 *
 *     bench-dialogues write N SEED [alone]              N dialogues as JSON lines; alone: every turn a dialogue of its own
 *     bench-dialogues judge MODEL HISTORY [N]           of N other ones (512): how many answers are right as a whole
 *     bench-dialogues time MODEL HISTORY TURNS          seconds until the first token of an answer can be said, turn by turn
 *
 * HISTORY: memory (the model's own, written after every turn), none (every turn is the first), all (one stream, nothing is forgotten).
 * What was said before is what the dialogue says, not what the model answered. Prints one line of JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/bundle.h"
#include "run/session.h"

enum { TURNS = 6, NAMES = 64, COLOURS = 32, FURTHEST = 4, BATCH = 64, ROOM = 32 };
static const char *const names[NAMES] = {
    "anna", "bela", "carl", "dora", "emil", "fina", "gero", "hana", "igor", "jana", "karo", "lena", "milo", "nora", "otto", "pina",
    "quin", "rosa", "sven", "tina", "udo",  "vera", "wim",  "xena", "yuri", "zara", "abel", "beat", "cleo", "dirk", "elsa", "fred",
    "gina", "hugo", "ines", "jost", "kira", "lars", "mona", "nils", "olga", "paul", "rita", "saul", "thea", "uwe",  "viki", "wera",
    "yara", "zeno", "alma", "bert", "cora", "dana", "egon", "fay",  "gus",  "heda", "ida",  "jens", "kai",  "lia",  "max",  "nele"};
static const char *const colours[COLOURS] = {"red",   "green", "blue",  "black", "white", "brown", "grey",   "pink",
                                             "gold",  "teal",  "lime",  "navy",  "plum",  "rust",  "sand",   "rose",
                                             "jade",  "amber", "coral", "ivory", "lilac", "mauve", "ochre",  "olive",
                                             "peach", "ruby",  "umber", "wine",  "cyan",  "mint",  "silver", "violet"};

/* ---- made up ---- */
typedef struct said {
  int name, colour, lag; /* lag 0: it is said; else it is asked how many turns later */
} said;

static int below(uint64_t key, int turn, int what, int n) {
  return (int)(mn_random_uniform(key, (uint64_t)turn, (uint64_t)what) * (double)n);
}

/* Names of a dialogue differ, so that no answer changes, and none is asked for twice, so that it was said when it says so. */
static void make(uint64_t key, said turn[TURNS]) {
  bool asked[TURNS] = {false};
  for (int n = 0; n < TURNS; n++) {
    int from[FURTHEST], k = 0;
    for (int lag = 1; lag <= FURTHEST && lag <= n; lag++)
      if (!turn[n - lag].lag && !asked[n - lag]) from[k++] = lag;
    if (k && below(key, n, 0, 4) < (n < 3 ? 1 : 3)) { /* late, so that there is something to look back at */
      const int lag = from[below(key, n, 1, k)];
      asked[n - lag] = true;
      turn[n] = (said){turn[n - lag].name, turn[n - lag].colour, lag};
      continue;
    }
    turn[n] = (said){below(key, n, 2, NAMES), below(key, n, 3, COLOURS), 0};
    for (int i = 0; i < n; i++)
      if (turn[i].name == turn[n].name) turn[n].name = (turn[n].name + 1) % NAMES, i = -1;
  }
}

static void asks(const said *t, char text[64]) {
  if (t->lag) snprintf(text, 64, " %s has", names[t->name]);
  else snprintf(text, 64, " %s has %s", names[t->name], colours[t->colour]);
}
static void answers(const said *t, char text[64]) { snprintf(text, 64, " %s", t->lag ? colours[t->colour] : "ok"); }

static int write_them(int n, uint64_t seed, bool alone) {
  for (int i = 0; i < n; i++) {
    said turn[TURNS];
    char q[64], a[64];
    make(mn_splitmix64(seed * 1000003 + (uint64_t)i), turn);
    for (int t = 0; t < TURNS; t++) {
      asks(&turn[t], q);
      answers(&turn[t], a);
      printf("%s{\"role\": \"user\", \"content\": \"%s\"}, {\"role\": \"assistant\", \"content\": \"%s\"}",
             t && !alone ? ", " : "{\"messages\": [", q, a);
      if (alone || t + 1 == TURNS) printf("]}\n");
    }
  }
  return 0;
}

/* ---- as tokens: what data: {type: dialogues, user: "Q", assistant: "A"} makes of it ---- */
typedef struct tokens {
  int32_t id[ROOM];
  int n, asked; /* the first so many are read, those behind are answered */
  int answered; /* where the answer ends, its end token with it           */
} tokens;

static mn_status add(const mn_tokenizer *tok, const char *text, tokens *out) {
  mn_ids ids = {0};
  MN_TRY(mn_tokenizer_encode(tok, text, strlen(text), 0, &ids));
  for (size_t i = 0; i < ids.len && out->n < ROOM; i++) out->id[out->n++] = ids.data[i];
  mn_ids_free(&ids);
  return MN_OK;
}

static mn_status encode(const mn_tokenizer *tok, const said *t, tokens *out) {
  char q[64], a[64];
  asks(t, q);
  answers(t, a);
  *out = (tokens){.n = 0};
  const char *const before[] = {"Q", q, "\n", "A"};
  for (int i = 0; i < 4; i++) MN_TRY(add(tok, before[i], out));
  out->asked = out->n;
  MN_TRY(add(tok, a, out));
  if (mn_tokenizer_eos(tok) >= 0 && out->n < ROOM) out->id[out->n++] = mn_tokenizer_eos(tok);
  out->answered = out->n;
  return add(tok, "\n", out);
}

/* ---- judged ---- */
typedef struct tally {
  int64_t asked[FURTHEST + 1], right[FURTHEST + 1]; /* by lag; 0: said, and acknowledged */
  double nll[FURTHEST + 1];
  int64_t tokens[FURTHEST + 1];
} tally;

static double nll_of(const float *x, int64_t V, int32_t wanted, bool *likeliest) {
  double most = -INFINITY, sum = 0;
  int64_t best = 0;
  for (int64_t v = 0; v < V; v++)
    if ((double)x[v] > most) most = (double)x[v], best = v;
  for (int64_t v = 0; v < V; v++) sum += exp((double)x[v] - most);
  *likeliest = best == wanted;
  return most + log(sum) - (double)x[wanted];
}

/* Turn n of every row: the question is read at once, the answer token by token. */
static mn_status judge_turn(mn_session *s, const tokens *t, const said *what, tally *out) {
  const int64_t V = mn_session_vocab_size(s);
  int32_t ids[BATCH * ROOM], count[BATCH];
  const float *logits;
  bool right[BATCH];
  for (int b = 0; b < BATCH; b++) {
    memcpy(ids + b * ROOM, t[b].id, sizeof t[b].id);
    count[b] = t[b].asked;
    right[b] = true;
  }
  MN_TRY(mn_session_feed_rows(s, ids, ROOM, count, &logits));
  for (int at = 0, more = 1; more; at++) {
    more = 0;
    for (int b = 0; b < BATCH; b++) {
      const int k = t[b].asked + at, lag = what[b].lag;
      count[b] = k < t[b].n;
      ids[b] = count[b] ? t[b].id[k] : 0;
      more += count[b];
      if (k >= t[b].answered) continue;
      bool likeliest;
      out->nll[lag] += nll_of(logits + b * V, V, t[b].id[k], &likeliest);
      out->tokens[lag]++;
      right[b] = right[b] && likeliest;
    }
    if (more) MN_TRY(mn_session_feed_rows(s, ids, 1, count, &logits));
  }
  for (int b = 0; b < BATCH; b++) out->asked[what[b].lag]++, out->right[what[b].lag] += right[b];
  return MN_OK;
}

static mn_status judge_batch(mn_session *s, const mn_tokenizer *tok, const char *history, int first, tally *out) {
  static said turn[BATCH][TURNS];
  static tokens t[BATCH];
  said what[BATCH];
  for (int b = 0; b < BATCH; b++) make(mn_splitmix64(0xD1A109ull ^ mn_splitmix64((uint64_t)(first + b))), turn[b]);
  MN_TRY(mn_session_reset(s));
  for (int n = 0; n < TURNS; n++) {
    for (int b = 0; b < BATCH; b++) {
      what[b] = turn[b][n];
      MN_TRY(encode(tok, &what[b], &t[b]));
    }
    MN_TRY(judge_turn(s, t, what, out));
    if (!strcmp(history, "memory")) MN_TRY(mn_session_end_turn(s, NULL));
    if (!strcmp(history, "none")) MN_TRY(mn_session_reset(s));
  }
  return MN_OK;
}

static mn_status judge(const mn_bundle *m, const char *history, int n) {
  mn_session *s;
  tally x;
  int64_t asked = 0, right = 0, said_tokens = 0;
  double nll = 0;
  memset(&x, 0, sizeof x);
  MN_TRY(mn_session_new(m->model, m->params, &(mn_session_config){.batch = BATCH, .prefill = 16}, &s));
  mn_status status = MN_OK;
  for (int i = 0; i < n && status == MN_OK; i += BATCH) status = judge_batch(s, m->tokenizer, history, i, &x);
  printf("{\"acknowledged\": %.4f, ", (double)x.right[0] / (double)x.asked[0]);
  for (int lag = 1; lag <= FURTHEST; lag++) {
    printf("\"lag_%d\": %.4f, ", lag, (double)x.right[lag] / (double)x.asked[lag]);
    asked += x.asked[lag], right += x.right[lag], nll += x.nll[lag], said_tokens += x.tokens[lag];
  }
  printf("\"questions\": %lld, \"accuracy\": %.4f, \"question_perplexity\": %.4f, \"answer_perplexity\": %.4f, \"state_bytes\": %zu}\n",
         (long long)asked, (double)right / (double)asked, exp(nll / (double)said_tokens),
         exp((nll + x.nll[0]) / (double)(said_tokens + x.tokens[0])), mn_session_state_bytes(s));
  mn_session_free(s);
  return status;
}

/* ---- timed ---- */
static mn_status turn_in(mn_session *s, const mn_tokenizer *tok, const char *history, const said *before, int n, double *seconds) {
  tokens t, now;
  int32_t all[4096];
  int64_t read = 0;
  const float *logits;
  MN_TRY(encode(tok, &before[n], &now));
  if (!strcmp(history, "all")) { /* the text so far is read again, as one who keeps nothing between turns must */
    MN_TRY(mn_session_reset(s));
    for (int i = 0; i < n && read + 2 * ROOM < 4096; i++) {
      MN_TRY(encode(tok, &before[i], &t));
      for (int k = 0; k < t.n; k++) all[read++] = t.id[k];
    }
  }
  for (int k = 0; k < now.asked; k++) all[read++] = now.id[k];
  const double begin = mn_now();
  MN_TRY(mn_session_feed(s, all, read, &logits));
  *seconds = mn_now() - begin;
  if (strcmp(history, "memory") != 0) return MN_OK;
  MN_TRY(mn_session_feed(s, now.id + now.asked, now.n - now.asked, NULL));
  return mn_session_end_turn(s, NULL);
}

static int by_size(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static mn_status time_turns(const mn_bundle *m, const char *history, int turns) {
  enum { REPEAT = 15, MOST = 64 };
  static double seconds[MOST][REPEAT];
  said x[MOST];
  mn_session *s;
  if (turns < 1 || turns > MOST) return mn_fail(MN_ERR_ARG, "1 to %d turns can be timed", MOST);
  for (int n = 0; n < turns; n++) x[n] = (said){n % NAMES, n % COLOURS, n == turns - 1 ? 1 : 0};
  MN_TRY(mn_session_new(m->model, m->params, &(mn_session_config){0}, &s));
  mn_status status = MN_OK;
  for (int k = -1; k < REPEAT && status == MN_OK; k++) { /* the first compiles */
    status = mn_session_reset(s);
    double ignored;
    for (int n = 0; n < turns && status == MN_OK; n++) status = turn_in(s, m->tokenizer, history, x, n, k < 0 ? &ignored : &seconds[n][k]);
  }
  printf("{");
  for (int n = 0; n < turns && status == MN_OK; n++) {
    qsort(seconds[n], REPEAT, sizeof(double), by_size);
    printf("\"turn_%d\": %.6f, ", n + 1, seconds[n][REPEAT / 2]);
  }
  printf("\"last_over_first\": %.4f}\n", seconds[turns - 1][REPEAT / 2] / seconds[0][REPEAT / 2]);
  mn_session_free(s);
  return status;
}

int main(int argc, char **argv) {
  mn_bundle m = {0};
  if (argc >= 4 && !strcmp(argv[1], "write"))
    return write_them(atoi(argv[2]), (uint64_t)atoll(argv[3]), argc > 4 && !strcmp(argv[4], "alone"));
  const bool times = argc == 5 && !strcmp(argv[1], "time"), judges = argc >= 4 && !strcmp(argv[1], "judge");
  if (!times && !judges)
    return fprintf(stderr, "usage: bench-dialogues write N SEED [alone] | judge MODEL HISTORY [N] | time MODEL HISTORY TURNS\n"), 2;
  mn_status status = mn_bundle_open(argv[2], NULL, 1, &m);
  if (status == MN_OK) status = mn_bundle_need_tokenizer(&m, argv[2]);
  if (status == MN_OK) status = times ? time_turns(&m, argv[3], atoi(argv[4])) : judge(&m, argv[3], argc > 4 ? atoi(argv[4]) : 512);
  mn_bundle_close(&m);
  if (status != MN_OK) fprintf(stderr, "bench-dialogues: %s\n", mn_message());
  return status != MN_OK;
}
