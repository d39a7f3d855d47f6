/* topics.c - recall while topics change: documents that take turns, segment by segment, each with facts of its own.
 *
 * Segment s belongs to document s mod D and begins with its tag, two tokens. The first `facts` segments of a document state one fact
 * each, the others ask for one:
 *     a fact       tag tag . . . key value . . . . .
 *     a question   tag tag . . key . . . | . . key -> . . .       target: the value, at ->; the first key stands in the first half
 * Two documents may give one key different values, so the tag is part of what is asked. The value is not shown after a question.
 * The distance of a question is the number of segments since its fact. Half of the filler is the same in every sample. */
#include "task/task.h"

#include <string.h>

enum { ARROW = 1, TAGS = 2, KEYS = 18, VALUES = 50, FILLER = 82, N_TAGS = KEYS - TAGS, N_KEYS = VALUES - KEYS, N_VALUES = FILLER - VALUES };

typedef struct topics_config {
  int64_t vocab_size, segment, segments, documents, facts, min_distance, max_distance;
} topics_config;

static const mn_field fields[] = {
    MN_FIELD_INT(topics_config, vocab_size, 256, FILLER + 1, 1 << 24, "ids: 1 ->, 2-17 tags, 18-49 keys, 50-81 values, from 82 on filler"),
    MN_FIELD_INT(topics_config, segment, 32, 10, 1 << 16, "tokens of a segment"),
    MN_FIELD_INT(topics_config, segments, 8, 2, 1 << 16, "segments of a sample"),
    MN_FIELD_INT(topics_config, documents, 2, 1, N_TAGS / 2, "documents D that take turns"),
    MN_FIELD_INT(topics_config, facts, 2, 1, N_KEYS, "segments of each document that state a fact"),
    MN_FIELD_INT(topics_config, min_distance, 1, 1, 1 << 16, "the shortest distance that is asked for, in segments"),
    MN_FIELD_INT(topics_config, max_distance, 1 << 16, 1, 1 << 16, "the longest"),
    MN_FIELD_END};

/* The facts [from, to) of its document that segment s may ask for. */
typedef struct choice {
  int64_t from, to;
} choice;
static choice choice_of(const topics_config *c, int64_t s) {
  int64_t turn = s / c->documents; /* fact f was stated (turn - f) * documents segments ago */
  if (turn < c->facts) return (choice){0, 0};
  int64_t far = c->max_distance / c->documents, near = (c->min_distance + c->documents - 1) / c->documents;
  choice k = {turn > far ? turn - far : 0, turn - near + 1};
  if (k.to > c->facts) k.to = c->facts;
  return k;
}

static mn_status setup(mn_task *task) {
  const topics_config *c = task->config;
  bool asked = false;
  for (int64_t s = 0; s < c->segments && !asked; s++) asked = choice_of(c, s).from < choice_of(c, s).to;
  if (!asked)
    return mn_fail(MN_ERR_CONFIG,
                   "task topics: with segments = %lld, documents = %lld and facts = %lld nothing is asked at a distance of %lld to %lld; "
                   "raise segments, or widen the distances",
                   (long long)c->segments, (long long)c->documents, (long long)c->facts, (long long)c->min_distance,
                   (long long)c->max_distance);
  task->seq_len = c->segment * c->segments;
  task->vocab_size = c->vocab_size;
  return MN_OK;
}

static int64_t below(mn_rng *rng, int64_t n) { return (int64_t)mn_rng_below(rng, (uint64_t)n); }

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const topics_config *c = task->config;
  int64_t L = c->segment, n_filler = c->vocab_size - FILLER;
  int32_t tags[N_TAGS], keys[N_TAGS / 2][N_KEYS], values[N_TAGS / 2][N_KEYS], scratch[N_KEYS];
  mn_rng_choose(rng, TAGS, N_TAGS, (size_t)(2 * c->documents), scratch, tags);
  for (int64_t d = 0; d < c->documents; d++) {
    mn_rng_choose(rng, KEYS, N_KEYS, (size_t)c->facts, scratch, keys[d]);
    for (int64_t f = 0; f < c->facts; f++) values[d][f] = (int32_t)(VALUES + below(rng, N_VALUES));
  }
  for (int64_t s = 0; s < c->segments; s++) {
    int32_t *x = input + s * L, *y = target + s * L;
    int64_t d = s % c->documents, turn = s / c->documents;
    for (int64_t t = 0; t < L; t++) {
      bool drawn = below(rng, 2) == 0;
      x[t] = (int32_t)(FILLER + (drawn ? below(rng, n_filler) : t * 37 % n_filler));
      y[t] = MN_IGNORE;
    }
    x[0] = tags[2 * d], x[1] = tags[2 * d + 1];
    choice k = choice_of(c, s);
    if (turn < c->facts) {
      int64_t at = 2 + below(rng, L - 3);
      x[at] = keys[d][turn], x[at + 1] = values[d][turn];
    } else if (k.from < k.to) {
      int64_t f = k.from + below(rng, k.to - k.from), half = L / 2, at = half + below(rng, L - half - 1);
      x[2 + below(rng, half - 2)] = keys[d][f];
      x[at] = keys[d][f], x[at + 1] = ARROW;
      y[at + 1] = values[d][f];
    }
  }
  return MN_OK;
}

/* A table by tag and key, filled and asked in the order of the text: where the value stands that is asked for at each token, or -1. */
static void evidence(const mn_task *task, const int32_t *input, int32_t *position) {
  const topics_config *c = task->config;
  int32_t stated[N_TAGS][N_KEYS];
  memset(stated, 0xff, sizeof stated);
  for (int64_t t = 0; t < task->seq_len; t++) {
    const int32_t *x = input + t;
    int32_t tag = input[t / c->segment * c->segment] - TAGS;
    position[t] = -1;
    if (t % c->segment < 2 || x[-1] < KEYS || x[-1] >= VALUES || tag < 0 || tag >= N_TAGS) continue;
    if (x[0] >= VALUES && x[0] < FILLER) stated[tag][x[-1] - KEYS] = (int32_t)t;
    if (x[0] == ARROW) position[t] = stated[tag][x[-1] - KEYS];
  }
}

static mn_status oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  evidence(task, input, prediction);
  for (int64_t t = 0; t < task->seq_len; t++) prediction[t] = prediction[t] < 0 ? MN_IGNORE : input[prediction[t]];
  return MN_OK;
}

const mn_task_def mn_task_topics = {
    .name = "topics",
    .help = "recall while topics change: documents take turns by segments, and ask for facts of theirs",
    .fields = fields,
    .config_size = sizeof(topics_config),
    .setup = setup,
    .sample = sample,
    .oracle = oracle,
    .evidence = evidence,
};
