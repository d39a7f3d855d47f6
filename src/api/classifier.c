/* classifier.c - mneme_classify.h: a session that is fed frames, or frames that are kept until the whole is read. */
#include <mneme_classify.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/door.h"
#include "api/settings.h"
#include "checkpoint/bundle.h"
#include "run/session.h"
#include "run/whole.h"
#include "source/features.h"

struct mn_classifier {
  mn_bundle bundle;
  mn_arena *arena;
  mn_features *features; /* NULL: frames are as they are */
  mn_session *session;   /* of a stream; else */
  mn_whole *whole;
  int64_t classes, channels, n, room; /* frames that were fed, and of which there is room */
  float *frames, *said;               /* [room, channels], scaled; [classes] */
};

static mn_status open_model(mn_classifier *c, const char *dir) {
  const mn_model *m = c->bundle.model;
  MN_TRY(mn_whole_new(m, c->bundle.params, MN_F32, &c->whole)); /* what is no classifier is refused here */
  c->classes = mn_whole_classes(c->whole);
  if (strcmp(m->inputs->name, "frames") != 0) return mn_fail(MN_ERR_CONFIG, "%s reads pictures; this reads sequences of frames", dir);
  c->channels = mn_model_shape(m, m->inputs, (mn_sizes){1, 1, 1}).dim[2];
  if (mn_model_check_stream(m) == MN_OK) {
    mn_whole_free(c->whole);
    c->whole = NULL;
    MN_TRY(mn_session_new(m, c->bundle.params, &(mn_session_config){.prefill = 1}, &c->session));
  }
  if (m->reads) {
    c->features = mn_arena_alloc(c->arena, sizeof *c->features);
    if (!c->features) return MN_ERR_MEMORY;
    MN_TRY(mn_context(mn_features_parse(c->arena, m->reads, c->features), "%s/config.json", dir));
    const mn_features *f = c->features;
    const int64_t each = f->type == MN_FEATURES_AUDIO ? f->bands : f->rows ? f->width * f->channels : 0;
    if (each != c->channels) return mn_fail(MN_ERR_CONFIG, "%s/config.json: what `reads` says does not fit the model's frames", dir);
  }
  c->said = mn_alloc((size_t)c->classes * sizeof *c->said);
  return c->said ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_classifier_open(const char *dir, int threads, mn_classifier **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!dir || !out) return mn_fail(MN_ERR_ARG, "mn_classifier_open: dir and out must not be NULL");
  MN_TRY(mn_threads_check("mn_classifier_open", threads));
  mn_classifier *c = mn_calloc(1, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  c->arena = mn_arena_new();
  mn_status status = c->arena ? mn_bundle_open(dir, NULL, threads, &c->bundle) : MN_ERR_MEMORY;
  if (status == MN_OK) status = open_model(c, dir);
  if (status == MN_OK) *out = c;
  else mn_classifier_free(c);
  return status;
}

void mn_classifier_free(mn_classifier *c) {
  if (!c) return;
  mn_session_free(c->session);
  mn_whole_free(c->whole);
  mn_bundle_close(&c->bundle);
  mn_arena_free(c->arena);
  free(c->frames);
  free(c->said);
  free(c);
}

int64_t mn_classifier_classes(const mn_classifier *c) { return c ? c->classes : 0; }
int64_t mn_classifier_channels(const mn_classifier *c) { return c ? c->channels : 0; }
int64_t mn_classifier_position(const mn_classifier *c) { return c ? c->n : 0; }
bool mn_classifier_is_stream(const mn_classifier *c) { return c && c->session; }
int64_t mn_classifier_late(const mn_classifier *c) { return c && c->session ? mn_session_late(c->session) : -1; }

const char *mn_classifier_label(const mn_classifier *c, int64_t i) {
  const mn_strings *own = c && c->features ? &c->features->labels : NULL;
  return own && i >= 0 && i < own->count && own->count == c->classes ? own->items[i] : NULL;
}

static void softmax(const mn_classifier *c, const float *logits, double *p) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < c->classes; i++) most = fmax(most, (double)logits[i]);
  for (int64_t i = 0; i < c->classes; i++) sum += p[i] = exp((double)logits[i] - most);
  for (int64_t i = 0; i < c->classes; i++) p[i] /= sum;
}

static void scale(const mn_classifier *c, const float *frame, float *to) {
  const mn_features *f = c->features;
  if (f && f->type == MN_FEATURES_AUDIO) mn_features_scale(f, frame, to);
  else
    for (int64_t i = 0; i < c->channels; i++) to[i] = f ? mn_features_pixel(f, (double)frame[i]) : frame[i];
}

static mn_status grow(mn_classifier *c, int64_t n) {
  if (n <= c->room) return MN_OK;
  const int64_t room = n > 2 * c->room ? n : 2 * c->room;
  if (room > INT32_MAX / c->channels) return mn_fail(MN_ERR_MEMORY, "a sequence of %lld frames is too long to be kept", (long long)n);
  float *more = mn_realloc(c->frames, (size_t)(room * c->channels) * sizeof *more);
  if (!more) return MN_ERR_MEMORY;
  c->frames = more, c->room = room;
  return MN_OK;
}

mn_status mn_classifier_feed(mn_classifier *c, const float *frames, int64_t n, double *p) {
  MN_DOOR;
  if (!c || !frames || n < 1) return mn_fail(MN_ERR_ARG, "mn_classifier_feed: c and frames must not be NULL, and n at least 1");
  if (n > INT64_MAX / (int64_t)sizeof(float) / c->channels)
    return mn_fail(MN_ERR_ARG, "mn_classifier_feed: no memory holds %lld frames of %lld numbers", (long long)n, (long long)c->channels);
  for (int64_t i = 0; i < n * c->channels; i++)
    if (!isfinite(frames[i]))
      return mn_fail(MN_ERR_NUMERIC, "mn_classifier_feed: frame %lld holds a number that is not finite", (long long)(i / c->channels));
  MN_TRY(grow(c, c->session ? 1 : c->n + n));
  for (int64_t t = 0; t < n; t++) {
    float *to = c->frames + (c->session ? 0 : c->n * c->channels);
    scale(c, frames + t * c->channels, to);
    if (c->session) MN_TRY(mn_session_feed_frames(c->session, to, 1, p && t + 1 == n && mn_session_late(c->session) >= 0 ? c->said : NULL));
    c->n++;
  }
  if (!p) return MN_OK;
  const int64_t late = mn_classifier_late(c);
  if (late < 0) return mn_fail(MN_ERR_ARG, "mn_classifier_feed: this model says nothing before the end; leave p out, and judge");
  if (c->n <= late) return mn_fail(MN_ERR_ARG, "mn_classifier_feed: it says nothing of the first %lld frames", (long long)late);
  softmax(c, c->said, p);
  return MN_OK;
}

mn_status mn_classifier_judge(mn_classifier *c, double *p) {
  MN_DOOR;
  const float *logits;
  if (!c || !p) return mn_fail(MN_ERR_ARG, "mn_classifier_judge: c and p must not be NULL");
  if (!c->n) return mn_fail(MN_ERR_ARG, "mn_classifier_judge: no frame was fed");
  const bool sound = c->features && c->features->type == MN_FEATURES_AUDIO;
  if (c->session) MN_TRY(mn_session_judge(c->session, &logits));
  else MN_TRY(mn_whole_frames(c->whole, c->frames, c->n, sound && c->n < c->features->frames ? c->features->frames : c->n, &logits));
  softmax(c, logits, p);
  return MN_OK;
}

mn_status mn_classifier_reset(mn_classifier *c) {
  MN_DOOR;
  if (!c) return mn_fail(MN_ERR_ARG, "mn_classifier_reset: c must not be NULL");
  c->n = 0;
  return c->session ? mn_session_reset(c->session) : MN_OK;
}
