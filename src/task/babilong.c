/* babilong.c - stories of facts in a long text, as text, after BABILong (Kuratov et al., arXiv 2406.10149) and the bAbI tasks (Weston et
 * al., arXiv 1502.05698), with persons, places, things and sentences of our own.
 *
 *     Ines rode to the mill. ... filler ... Ines took the lantern. ... filler ... Ines walked to the chapel. ... filler ...
 *     Question: Where is the lantern now? Answer:                                                                   chapel
 *
 * A little world is played; each event is a sentence. What is asked follows from the sentences alone, never from how the world began:
 *     qa1  where a person is                                     one fact
 *     qa2  where a thing is: who took it, and where they went    two facts
 *     qa3  where a thing was before it came to where it is       three facts
 *     qa4  what lies north (east, south, west) of what           two places of a relation
 *     qa5  who gave what to whom                                 three
 * The sentences keep their order; each has a uniformly drawn place among the filler's sentences. The world answers when a sample is
 * made; the oracle reads sentences and knows nothing of the world. */
#include "task/filler.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERSONS = 4, PLACES = 6, THINGS = 3, DIRECTIONS = 4, MOST_FACTS = 64, MOST_TRIES = 10000, UNKNOWN = -1 };
static const char *const persons[PERSONS] = {"Tilda", "Oskar", "Marek", "Ines"};
static const char *const places[PLACES] = {"mill", "harbour", "chapel", "orchard", "tavern", "stable"};
static const char *const things[THINGS] = {"lantern", "ledger", "flute"};
static const char *const directions[DIRECTIONS] = {"north", "east", "south", "west"};

/* ---- events and their sentences ---- */

typedef enum { MOVES, TAKES, LEAVES, GIVES, LIES, ACTIONS } action;
typedef struct event { /* MOVES a to b; TAKES, LEAVES a, thing b; GIVES a, thing b, to c; LIES place a, direction b, of place c */
  action what;
  int a, b, c;
} event;

/* What stands between a name and what follows it. */
enum { WAYS = 3 };
static const char *const ways[ACTIONS][WAYS] = {{" walked to the ", " rode to the ", " set off for the "},
                                                {" took the ", " fetched the ", " gathered up the "},
                                                {" left the ", " set down the ", " let go of the "},
                                                {" gave the ", " handed the ", " lent the "},
                                                {" lies ", " lies ", " lies "}};

static void put_event(mn_text *out, const event *e, int way) {
  if (e->what == LIES) {
    mn_text_addf(out, "The %s%s%s of the %s.", places[e->a], ways[LIES][way], directions[e->b], places[e->c]);
    return;
  }
  mn_text_addf(out, "%s%s%s", persons[e->a], ways[e->what][way], e->what == MOVES ? places[e->b] : things[e->b]);
  if (e->what == GIVES) mn_text_addf(out, " to %s", persons[e->c]);
  mn_text_add(out, ".");
}

/* ---- the world ---- */

typedef struct world {
  int person_at[PERSONS], thing_at[THINGS], holder[THINGS]; /* holder UNKNOWN: it lies there */
  bool place_said[PERSONS];                                 /* by a sentence */
  int been[THINGS][MOST_FACTS + 1], n_been[THINGS];         /* the places of a thing, in order; UNKNOWN where no sentence says which */
  event events[MOST_FACTS];
  int n;
} world;

static int below(mn_rng *rng, int n) { return (int)mn_rng_below(rng, (uint64_t)n); }

static void thing_comes(world *w, int thing, int place) {
  if (w->n_been[thing] && w->been[thing][w->n_been[thing] - 1] == place && place != UNKNOWN) return;
  w->been[thing][w->n_been[thing]++] = place;
}

static void begin(world *w, mn_rng *rng, int among) { /* everybody in one of the first `among` places */
  memset(w, 0, sizeof *w);
  for (int p = 0; p < PERSONS; p++) w->person_at[p] = below(rng, among);
  for (int t = 0; t < THINGS; t++) w->thing_at[t] = below(rng, among), w->holder[t] = UNKNOWN;
}

static bool can(const world *w, const event *e) {
  switch (e->what) {
  case MOVES:
    return w->person_at[e->a] != e->b;
  case TAKES:
    return w->holder[e->b] == UNKNOWN && w->thing_at[e->b] == w->person_at[e->a];
  case LEAVES:
    return w->holder[e->b] == e->a;
  default:
    return w->holder[e->b] == e->a && e->c != e->a && w->person_at[e->c] == w->person_at[e->a];
  }
}

static void happens(world *w, const event *e) {
  const int said = w->place_said[e->a] ? w->person_at[e->a] : UNKNOWN;
  w->events[w->n++] = *e;
  switch (e->what) {
  case MOVES:
    w->person_at[e->a] = e->b;
    w->place_said[e->a] = true;
    for (int t = 0; t < THINGS; t++)
      if (w->holder[t] == e->a) w->thing_at[t] = e->b, thing_comes(w, t, e->b);
    break;
  case TAKES:
    w->holder[e->b] = e->a;
    if (!w->n_been[e->b] || said != UNKNOWN) thing_comes(w, e->b, said);
    break;
  case LEAVES:
    w->holder[e->b] = UNKNOWN;
    break;
  default:
    w->holder[e->b] = e->c;
  }
}

/* Something that can happen, of the given actions. */
static event draw_event(const world *w, mn_rng *rng, const action *of, int n) {
  for (;;) {
    event e = {.what = of[below(rng, n)], .a = below(rng, PERSONS)};
    e.b = below(rng, e.what == MOVES ? PLACES : THINGS);
    e.c = below(rng, PERSONS);
    if (can(w, &e)) return e;
  }
}

/* ---- stories: each gives events, a question and its answer ---- */

typedef struct story {
  world w;
  char question[96];
  const char *answer;
} story;

static bool tell_qa1(story *s, mn_rng *rng, int facts) {
  begin(&s->w, rng, PLACES);
  for (int i = 0; i < facts; i++) {
    event e = draw_event(&s->w, rng, (const action[]){MOVES}, 1);
    happens(&s->w, &e);
  }
  int who;
  do who = below(rng, PERSONS);
  while (!s->w.place_said[who]);
  snprintf(s->question, sizeof s->question, "Where is %s now?", persons[who]);
  s->answer = places[s->w.person_at[who]];
  return true;
}

/* Where a thing is follows from the sentences when its last place does. */
static bool tell_things(story *s, mn_rng *rng, int facts, int known) {
  int good[THINGS], n = 0;
  begin(&s->w, rng, PLACES);
  for (int i = 0; i < facts; i++) {
    event e = draw_event(&s->w, rng, (const action[]){MOVES, TAKES, LEAVES}, 3);
    happens(&s->w, &e);
  }
  for (int t = 0; t < THINGS; t++) {
    bool all = s->w.n_been[t] >= known;
    for (int k = 1; all && k <= known; k++) all = s->w.been[t][s->w.n_been[t] - k] != UNKNOWN;
    if (all) good[n++] = t;
  }
  if (!n) return false;
  const int t = good[below(rng, n)], *last = &s->w.been[t][s->w.n_been[t] - 1];
  if (known == 1) snprintf(s->question, sizeof s->question, "Where is the %s now?", things[t]);
  else snprintf(s->question, sizeof s->question, "Where was the %s before it came to the %s?", things[t], places[*last]);
  s->answer = places[known == 1 ? s->w.thing_at[t] : last[-1]];
  return true;
}

static bool tell_qa2(story *s, mn_rng *rng, int facts) { return tell_things(s, rng, facts, 1); }
static bool tell_qa3(story *s, mn_rng *rng, int facts) { return tell_things(s, rng, facts, 2); }

/* Three places in a row; the one in the middle is asked about. */
static bool tell_qa4(story *s, mn_rng *rng, int facts) {
  (void)facts;
  int32_t p[3], scratch[PLACES];
  const int d = below(rng, DIRECTIONS), first = below(rng, 2), back = below(rng, 2);
  mn_rng_choose(rng, 0, PLACES, 3, scratch, p);
  memset(&s->w, 0, sizeof s->w);
  const event said[2] = {{LIES, p[0], d, p[1]}, {LIES, p[1], d, p[2]}};
  s->w.events[s->w.n++] = said[first];
  s->w.events[s->w.n++] = said[!first];
  if (back) snprintf(s->question, sizeof s->question, "What is the %s %s of?", places[p[1]], directions[d]);
  else snprintf(s->question, sizeof s->question, "What lies %s of the %s?", directions[d], places[p[1]]);
  s->answer = places[p[back ? 2 : 0]];
  return true;
}

static bool tell_qa5(story *s, mn_rng *rng, int facts) {
  static const action all[] = {MOVES, TAKES, GIVES, GIVES};
  event given = {.what = MOVES};
  begin(&s->w, rng, 2);
  while (s->w.n < facts && (given.what != GIVES || s->w.n < facts - 5)) { /* the last of the gifts that leave room */
    event e = draw_event(&s->w, rng, all, 4);
    happens(&s->w, &e);
    if (e.what == GIVES) given = e;
  }
  if (given.what != GIVES) return false;
  for (int more = below(rng, 6), tries = 0; more > 0 && s->w.n < facts && tries < 1000; tries++) {
    event e = draw_event(&s->w, rng, all, 4); /* neither this thing nor this giver and receiver again */
    if (e.what != MOVES && (e.b == given.b || (e.what == GIVES && e.a == given.a && e.c == given.c))) continue;
    happens(&s->w, &e);
    more--;
  }
  switch (below(rng, 3)) {
  case 0:
    snprintf(s->question, sizeof s->question, "Who gave the %s to %s?", things[given.b], persons[given.c]);
    s->answer = persons[given.a];
    return true;
  case 1:
    snprintf(s->question, sizeof s->question, "What did %s give to %s?", persons[given.a], persons[given.c]);
    s->answer = things[given.b];
    return true;
  default:
    snprintf(s->question, sizeof s->question, "Who got the %s from %s?", things[given.b], persons[given.a]);
    s->answer = persons[given.c];
    return true;
  }
}

typedef struct kind {
  bool (*tell)(story *s, mn_rng *rng, int facts);
  int fewest, most; /* facts */
} kind;
enum { KINDS = 5, MIX = KINDS };
static const kind kinds[KINDS] = {{tell_qa1, 2, 10}, {tell_qa2, 4, 14}, {tell_qa3, 6, 20}, {tell_qa4, 2, 2}, {tell_qa5, 3, 14}};
static const char *const kind_names[] = {"qa1", "qa2", "qa3", "qa4", "qa5", "mix", NULL};

/* ---- samples ---- */

typedef struct babilong_config {
  int kind;
  int64_t facts, len, new_tokens;
  double depth;
  mn_strings texts;
} babilong_config;

static const mn_field fields[] = {
    MN_FIELD_ENUM(babilong_config, kind, kind_names, 0, "what is asked; mix: one of the five for each sample"),
    MN_FIELD_INT(babilong_config, facts, 0, 0, MOST_FACTS, "the most facts of a story; 0: 10, 14, 20, 2, 14 of qa1 to qa5"),
    MN_FIELD_INT(babilong_config, len, 0, 0, 1 << 28, "prompt and new tokens fill so many tokens (T); 0: no filler"),
    MN_FIELD_INT(babilong_config, new_tokens, 12, 1, 1 << 16, "tokens kept free for the answer"),
    MN_FIELD_FLOAT(babilong_config, depth, -1, -1, 100, "percent of the filler before all facts; -1: each has a place of its own"),
    MN_FIELD_STRINGS(babilong_config, texts, "text files that filler is taken from; none: prose of words that there are not"),
    MN_FIELD_END};

typedef struct placed { /* facts among sentences of filler */
  double at[MOST_FACTS];
  int way[MOST_FACTS];
} placed;

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void put_mixed(mn_text *out, const story *s, const placed *p, const mn_text *filler) {
  size_t sentences = filler->len > 0, sentence = 0, from = 0;
  int next = 0;
  for (size_t i = 0; i < filler->len; i++) sentences += mn_ends_sentence(filler->data, i, filler->len);
  for (size_t i = 0; i <= filler->len; i++) {
    const bool end = i == filler->len;
    if (!end && !mn_ends_sentence(filler->data, i, filler->len)) continue;
    for (; next < s->w.n && (size_t)(p->at[next] * (double)(sentences + 1)) <= sentence; next++) {
      if (out->len) mn_text_add(out, " ");
      put_event(out, &s->w.events[next], p->way[next]);
    }
    if (i > from) {
      if (out->len) mn_text_add(out, " ");
      mn_text_add_bytes(out, filler->data + from, i - from);
    }
    from = i + 1;
    sentence++;
  }
  for (; next < s->w.n; next++) {
    if (out->len) mn_text_add(out, " ");
    put_event(out, &s->w.events[next], p->way[next]);
  }
}

static mn_status tell(const mn_task *task, mn_rng *rng, story *s) {
  const babilong_config *c = task->config;
  const kind *k = &kinds[c->kind == MIX ? below(rng, KINDS) : c->kind];
  const int most = c->facts ? (int)c->facts : k->most, fewest = k->fewest < most ? k->fewest : most;
  for (int tries = 0; tries < MOST_TRIES; tries++)
    if (k->tell(s, rng, fewest + below(rng, most - fewest + 1))) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "task babilong: no story of at most %d facts answers a question of its kind; raise facts", most);
}

/* The sample of `seed` with `words` of filler. */
static mn_status build(const mn_task *task, uint64_t seed, size_t words, mn_task_text *out) {
  const babilong_config *c = task->config;
  const mn_filler *user = task->data;
  mn_rng rng;
  story s;
  placed p;
  mn_text prompt = {0}, filler = {0};
  mn_rng_seed(&rng, seed);
  MN_TRY(tell(task, &rng, &s));
  for (int i = 0; i < s.w.n; i++) {
    p.at[i] = mn_rng_uniform(&rng);
    p.way[i] = below(&rng, WAYS);
  }
  if (c->depth >= 0)
    for (int i = 0; i < s.w.n; i++) p.at[i] = c->depth / 100;
  qsort(p.at, (size_t)s.w.n, sizeof *p.at, by_value);
  if (words && user->n_words) mn_filler_words(user, (size_t)mn_rng_below(&rng, user->n_words), words, &filler);
  else if (words) mn_prose_words(&rng, words, &filler);
  put_mixed(&prompt, &s, &p, &filler);
  mn_text_addf(&prompt, "\nQuestion: %s Answer:", s.question);
  const bool failed = prompt.failed || filler.failed;
  mn_text_free(&filler);
  out->prompt = mn_text_take(&prompt);
  out->answer = mn_format(" %s", s.answer);
  out->answers = mn_calloc(1, sizeof *out->answers);
  if (failed || !out->prompt || !out->answer || !out->answers) return MN_ERR_MEMORY;
  if (!(out->answers[0] = mn_strdup(s.answer))) return MN_ERR_MEMORY;
  out->n_answers = 1;
  return MN_OK;
}

static mn_status sample(const mn_task *task, int split, uint64_t seed, mn_task_text *out) {
  (void)split;
  const babilong_config *c = task->config;
  size_t words = 0;
  if (c->len) MN_TRY(mn_fit_units(task, build, seed, c->len < 4096 ? 1 : 50, c->len, c->new_tokens, out, &words));
  mn_task_text_free(out);
  MN_TRY(build(task, seed, words, out));
  const size_t n = task->count_tokens(task->count_ctx, out->prompt, strlen(out->prompt));
  if (!c->len || (int64_t)n + c->new_tokens <= c->len) return MN_OK;
  return mn_fail(MN_ERR_CONFIG,
                 "task babilong: len = %lld is too short for a story of %zu tokens and %lld new ones; raise len or lower facts",
                 (long long)c->len, n, (long long)c->new_tokens);
}

/* The first word, whatever letters and signs are around it. */
static double score(const mn_task *task, const mn_task_text *s, const char *output) {
  (void)task;
  const size_t n = strlen(s->answers[0]);
  while (*output && !isalpha((unsigned char)*output)) output++;
  size_t i = 0;
  while (isalpha((unsigned char)output[i])) i++;
  if (i != n) return 0;
  for (i = 0; i < n; i++)
    if (tolower((unsigned char)output[i]) != tolower((unsigned char)s->answers[0][i])) return 0;
  return 1;
}

/* ---- the oracle: sentences, and what follows from them ---- */

static int word_at(const char **p, const char *const *words, int n) { /* which of them stands at *p, which moves past it */
  for (int i = 0; i < n; i++) {
    const size_t len = strlen(words[i]);
    if (strncmp(*p, words[i], len) || isalpha((unsigned char)(*p)[len])) continue;
    *p += len;
    return i;
  }
  return UNKNOWN;
}

static bool skip(const char **p, const char *text) {
  const size_t n = strlen(text);
  if (strncmp(*p, text, n)) return false;
  *p += n;
  return true;
}

static bool read_event(const char *p, event *e) {
  if (skip(&p, "The ")) {
    e->what = LIES;
    return (e->a = word_at(&p, places, PLACES)) >= 0 && skip(&p, " lies ") && (e->b = word_at(&p, directions, DIRECTIONS)) >= 0 &&
           skip(&p, " of the ") && (e->c = word_at(&p, places, PLACES)) >= 0 && *p == '.';
  }
  if ((e->a = word_at(&p, persons, PERSONS)) < 0) return false;
  for (int what = MOVES; what <= GIVES; what++)
    for (int way = 0; way < WAYS; way++) {
      const char *q = p;
      if (!skip(&q, ways[what][way])) continue;
      e->what = (action)what;
      e->b = what == MOVES ? word_at(&q, places, PLACES) : word_at(&q, things, THINGS);
      if (what == GIVES && (!skip(&q, " to ") || (e->c = word_at(&q, persons, PERSONS)) < 0)) continue;
      if (e->b >= 0 && *q == '.') return true;
    }
  return false;
}

typedef struct known { /* from sentences alone */
  int person[PERSONS], holder[THINGS], now[THINGS], before[THINGS];
} known;

static void learn_place(known *k, int thing, int place) {
  if (k->now[thing] == place) return;
  k->before[thing] = k->now[thing];
  k->now[thing] = place;
}

static void learn(known *k, const event *e) {
  if (e->what == MOVES) {
    k->person[e->a] = e->b;
    for (int t = 0; t < THINGS; t++)
      if (k->holder[t] == e->a) learn_place(k, t, e->b);
  } else if (e->what == TAKES) {
    k->holder[e->b] = e->a;
    if (k->person[e->a] != UNKNOWN) learn_place(k, e->b, k->person[e->a]);
  } else if (e->what == LEAVES) {
    k->holder[e->b] = UNKNOWN;
  } else if (e->what == GIVES) {
    k->holder[e->b] = e->c;
  }
}

static const char *reply(const char *question, const known *k, const event *events, int n) {
  const char *p = question;
  int a, b;
  if (skip(&p, "Where is the ")) return (a = word_at(&p, things, THINGS)) >= 0 && k->now[a] >= 0 ? places[k->now[a]] : "";
  if (skip(&p, "Where is ")) return (a = word_at(&p, persons, PERSONS)) >= 0 && k->person[a] >= 0 ? places[k->person[a]] : "";
  if (skip(&p, "Where was the ")) return (a = word_at(&p, things, THINGS)) >= 0 && k->before[a] >= 0 ? places[k->before[a]] : "";
  if (skip(&p, "What is the ")) {
    a = word_at(&p, places, PLACES);
    for (int i = 0; i < n; i++)
      if (events[i].what == LIES && events[i].a == a) return places[events[i].c];
  } else if (skip(&p, "What lies ")) {
    b = word_at(&p, directions, DIRECTIONS);
    a = skip(&p, " of the ") ? word_at(&p, places, PLACES) : UNKNOWN;
    for (int i = 0; i < n; i++)
      if (events[i].what == LIES && events[i].c == a && events[i].b == b) return places[events[i].a];
  } else if (skip(&p, "Who gave the ")) {
    b = word_at(&p, things, THINGS);
    a = skip(&p, " to ") ? word_at(&p, persons, PERSONS) : UNKNOWN;
    for (int i = n - 1; i >= 0; i--)
      if (events[i].what == GIVES && events[i].b == b && events[i].c == a) return persons[events[i].a];
  } else if (skip(&p, "What did ")) {
    a = word_at(&p, persons, PERSONS);
    b = skip(&p, " give to ") ? word_at(&p, persons, PERSONS) : UNKNOWN;
    for (int i = n - 1; i >= 0; i--)
      if (events[i].what == GIVES && events[i].a == a && events[i].c == b) return things[events[i].b];
  } else if (skip(&p, "Who got the ")) {
    b = word_at(&p, things, THINGS);
    a = skip(&p, " from ") ? word_at(&p, persons, PERSONS) : UNKNOWN;
    for (int i = n - 1; i >= 0; i--)
      if (events[i].what == GIVES && events[i].b == b && events[i].a == a) return persons[events[i].c];
  }
  return "";
}

static char *oracle(const mn_task *task, const char *prompt) {
  (void)task;
  static const char mark[] = "\nQuestion: ";
  event events[MOST_FACTS];
  known k;
  int n = 0;
  for (int i = 0; i < PERSONS; i++) k.person[i] = UNKNOWN;
  for (int i = 0; i < THINGS; i++) k.holder[i] = k.now[i] = k.before[i] = UNKNOWN;
  const char *question = strstr(prompt, mark);
  for (const char *p = prompt; question && p < question; p++) {
    event e = {.what = MOVES};
    if (n == MOST_FACTS || !read_event(p, &e)) continue;
    learn(&k, &e);
    events[n++] = e;
  }
  return mn_format(" %s", question ? reply(question + sizeof mark - 1, &k, events, n) : "");
}

static mn_status setup(mn_task *task) {
  const babilong_config *c = task->config;
  mn_filler *f = task->data = mn_calloc(1, sizeof *f);
  task->new_tokens = c->new_tokens;
  if (!f) return MN_ERR_MEMORY;
  return c->texts.count ? mn_filler_open(task->def->name, "texts", &c->texts, f) : MN_OK;
}

static void close_(mn_task *task) {
  mn_filler_close(task->data);
  free(task->data);
}

const mn_task_def mn_task_babilong = {
    .name = "babilong",
    .help = "a question about facts that are spread in filler (text)",
    .fields = fields,
    .config_size = sizeof(babilong_config),
    .setup = setup,
    .close = close_,
    .sample_text = sample,
    .oracle_text = oracle,
    .score_text = score,
};
