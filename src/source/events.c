/* events.c - events in time, each of a kind, drawn from a process that is known, so that what can be learned of it is known, too.
 *     hawkes: each event makes others likelier for a while (Hawkes 1971). Of mark m
 *         rate_m(t) = base + sum over events i before t of A[m, mark_i] decay exp(-decay (t - t_i))
 *         A[m, m - 1] = follow (marks in a ring), A[m, m] = repeat: an event makes follow + repeat others of itself
 *     wave: rate(t) = base (1 + 0.9 sin(2 pi t / period)) from a phase drawn for each row, marks by the quarter of the period
 * Drawn by thinning (Ogata 1981). Rows begin when `warm` events have gone by. */
#include <math.h>

#include "source/source.h"

typedef struct config {
  int process;
  int64_t events, marks, warm;
  double base, follow, repeat, decay, period;
} config;
enum { HAWKES, WAVE };
static const char *const processes[] = {"hawkes", "wave", NULL};
static const mn_field fields[] = {
    MN_FIELD_ENUM(config, process, processes, HAWKES, "hawkes: events bring others about; wave: the rate rises and falls"),
    MN_FIELD_INT(config, events, 64, 2, 1 << 16, "events T of a row"),
    MN_FIELD_INT(config, marks, 3, 1, 64, "kinds M of events"),
    MN_FIELD_INT(config, warm, 20, 0, 1 << 16, "events that go by before a row begins"),
    MN_FIELD_FLOAT(config, base, 0.2, DBL_MIN, 1e6, "rate without events, of each mark; wave: on average"),
    MN_FIELD_FLOAT(config, follow, 0.6, 0, 0.99, "hawkes: events of the next mark that an event brings about"),
    MN_FIELD_FLOAT(config, repeat, 0.1, 0, 0.99, "hawkes: events of its own mark"),
    MN_FIELD_FLOAT(config, decay, 2, DBL_MIN, 1e6, "hawkes: how fast that passes, per time"),
    MN_FIELD_FLOAT(config, period, 10, DBL_MIN, 1e6, "wave: length of the wave"),
    MN_FIELD_END};
static const mn_key_use uses[] = {{"follow", "hawkes"}, {"repeat", "hawkes"}, {"decay", "hawkes"}, {"period", "wave"}, {0}};

static mn_status check(const mn_value *map, const char *where, void *c) {
  const config *o = c;
  MN_TRY(mn_config_uses(map, where, uses, processes[o->process]));
  if (o->process == HAWKES && o->follow + o->repeat >= 0.99)
    return mn_config_fail(map, where, "follow", "and repeat must be below 0.99 together: else events multiply without end");
  return MN_OK;
}

static mn_status seq_len(const void *c, int64_t *out) {
  *out = ((const config *)c)->events;
  return MN_OK;
}

static mn_status open_events(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  s->seq_len = o->events;
  s->vocab_size = o->marks;
  mn_text_addf(&s->identity, "%s %lld %lld %lld %.17g %.17g %.17g %.17g %.17g", processes[o->process], (long long)o->events,
               (long long)o->marks, (long long)o->warm, o->base, o->follow, o->repeat, o->decay, o->period);
  return MN_OK;
}

/* ---- drawing ---- */
enum { MARKS = 64 };
typedef struct walk { /* of one row */
  const config *o;
  uint64_t key, row, drawn;
  double t, phase;
  double excited[MARKS]; /* of each mark, what events before t add to its rate */
} walk;

static double draw(walk *w) { return mn_random_uniform(w->key, w->row, w->drawn++); }

static double wave_rate(const walk *w, double t) {
  return w->o->base * (1 + 0.9 * sin(2 * 3.14159265358979323846 * (t / w->o->period + w->phase)));
}

/* Goes on by `gap` without an event. */
static void pass(walk *w, double gap) {
  const double left = exp(-w->o->decay * gap);
  for (int64_t m = 0; m < w->o->marks && w->o->process == HAWKES; m++) w->excited[m] *= left;
  w->t += gap;
}

/* The next event: its mark; *gap since the one before. Rates only fall between events, or stay below 1.9 base: what is drawn by the
 * highest rate counts with the probability that the rate there has of it. */
static int32_t next(walk *w, double *gap) {
  const config *o = w->o;
  const double began = w->t;
  for (;;) {
    double most = 1.9 * o->base, rate = 0;
    if (o->process == HAWKES) {
      most = 0;
      for (int64_t m = 0; m < o->marks; m++) most += o->base + w->excited[m];
    }
    pass(w, -log1p(-draw(w)) / most);
    if (o->process == WAVE) rate = wave_rate(w, w->t);
    for (int64_t m = 0; m < o->marks && o->process == HAWKES; m++) rate += o->base + w->excited[m];
    double at = draw(w) * most;
    if (at >= rate) continue;
    *gap = w->t - began;
    if (o->process == WAVE) {
      const double turn = w->t / o->period + w->phase;
      return (int32_t)((turn - floor(turn)) * (double)o->marks);
    }
    int32_t mark = 0;
    while (mark < o->marks - 1 && (at -= o->base + w->excited[mark]) >= 0) mark++;
    w->excited[(mark + 1) % o->marks] += o->follow * o->decay;
    w->excited[mark] += o->repeat * o->decay;
    return mark;
  }
}

/* The mean gap of the process, by which gaps are divided. */
static double scale_of(const config *o) {
  return o->process == WAVE ? 1 / o->base : (1 - o->follow - o->repeat) / (o->base * (double)o->marks);
}

/* ---- batches ---- */
static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  mn_batch_add(batch, "tokens", MN_I32, MN_SHAPE(batch->B, o->events), "mark of each event");
  mn_batch_add(batch, "gaps", MN_F32, MN_SHAPE(batch->B, o->events), "time since the event before, in mean gaps");
  mn_batch_add(batch, "target", MN_I32, MN_SHAPE(batch->B, o->events), "mark of the next event");
  mn_batch_add(batch, "target_gaps", MN_F32, MN_SHAPE(batch->B, o->events), "time until it");
}

static int64_t count(const mn_source *s, int split) {
  (void)s, (void)split;
  return INT64_MAX;
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  static const char *const names[] = {"events", "events held out", "events of the test"};
  const config *o = s->config;
  (void)epoch;
  walk w = {.o = o, .key = mn_random_key((uint64_t)s->seed, names[split]), .row = (uint64_t)index};
  w.phase = draw(&w);
  int32_t *mark = mn_batch_row(batch, 0, b), *target = mn_batch_row(batch, 2, b);
  float *gap = mn_batch_row(batch, 1, b), *target_gap = mn_batch_row(batch, 3, b);
  const double scale = scale_of(o);
  for (int64_t t = -o->warm; t <= o->events; t++) {
    double since;
    const int32_t m = next(&w, &since);
    if (t >= 0 && t < o->events) mark[t] = m, gap[t] = (float)(since / scale);
    if (t >= 1) target[t - 1] = m, target_gap[t - 1] = (float)(since / scale);
  }
  return MN_OK;
}

const mn_source_def mn_source_events = {
    .name = "events",
    .summary = "events in time, each of a kind, drawn from a known process",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .seq_len = seq_len,
    .open = open_events,
    .layout = layout,
    .count = count,
    .example = example,
};
