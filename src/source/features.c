/* features.c - see features.h. */
#include "source/features.h"

#include <math.h>
#include <string.h>

static const char *const types[] = {"audio", "images", NULL};
#define S mn_features
static const mn_field common[] = {MN_FIELD_ENUM(S, type, types, MN_FEATURES_AUDIO, "the source that the model was trained on"),
                                  MN_FIELD_STRINGS(S, labels, "names of the classes, from 0"), MN_FIELD_END};
static const mn_field of_audio[] = {MN_FIELD_INT_REQUIRED(S, rate, 1, 1000000, "samples a second"),
                                    MN_FIELD_INT_REQUIRED(S, frames, 1, 1 << 20, "frames of a row"),
                                    MN_FIELD_INT_REQUIRED(S, bands, 1, 4096, "mel bands of a frame"),
                                    MN_FIELD_FLOAT(S, window_ms, 25, DBL_MIN, 10000, "milliseconds of a window"),
                                    MN_FIELD_FLOAT(S, hop_ms, 10, DBL_MIN, 10000, "milliseconds between windows"),
                                    MN_FIELD_FLOAT(S, low_hz, 0, 0, 1e6, "lower edge of the bands"),
                                    MN_FIELD_FLOAT(S, high_hz, 0, 0, 1e6, "upper edge"),
                                    MN_FIELD_FLOATS(S, band_mean, -1e6, 1e6, "of each band in training"),
                                    MN_FIELD_FLOATS(S, band_deviation, DBL_MIN, 1e6, "of each band in training"),
                                    MN_FIELD_END};
static const mn_field of_images[] = {MN_FIELD_INT_REQUIRED(S, height, 1, 65536, "H"),
                                     MN_FIELD_INT_REQUIRED(S, width, 1, 65536, "W"),
                                     MN_FIELD_INT_REQUIRED(S, channels, 1, 3, "1 grey, 3 colours"),
                                     MN_FIELD_BOOL(S, rows, false, "each row is a frame"),
                                     MN_FIELD_FLOAT(S, mean, 0, 0, 1, "of the pixels in training, from 0 to 1"),
                                     MN_FIELD_FLOAT(S, deviation, 1, DBL_MIN, 1, "of the pixels in training"),
                                     MN_FIELD_END};
#undef S

static const mn_field *own_fields(int type) { return type == MN_FEATURES_AUDIO ? of_audio : of_images; }

int64_t mn_features_window(const mn_features *f) { return llround(f->window_ms * (double)f->rate / 1000); }
int64_t mn_features_hop(const mn_features *f) { return llround(f->hop_ms * (double)f->rate / 1000); }

static mn_status check(const mn_features *f, const mn_value *reads) {
  const char *where = "reads";
  if (f->type == MN_FEATURES_IMAGES) return MN_OK;
  if (f->band_mean.count != f->bands || f->band_deviation.count != f->bands)
    return mn_config_fail(reads, where, f->band_mean.count != f->bands ? "band_mean" : "band_deviation",
                          "must have %lld numbers, one a band", (long long)f->bands);
  if (mn_features_window(f) < 2 || mn_features_window(f) > 65536)
    return mn_config_fail(reads, where, "window_ms", "makes windows of %lld samples; 2 to 65536 are possible",
                          (long long)mn_features_window(f));
  if (mn_features_hop(f) < 1) return mn_config_fail(reads, where, "hop_ms", "is shorter than a sample");
  if (f->high_hz > (double)f->rate / 2 || f->low_hz >= f->high_hz)
    return mn_config_fail(reads, where, "high_hz", "must lie above low_hz and not above half of the rate");
  return MN_OK;
}

mn_status mn_features_parse(mn_arena *arena, const mn_value *reads, mn_features *out) {
  *out = (mn_features){0};
  const mn_value *type = mn_value_get(reads, "type");
  for (int i = 0; types[i]; i++)
    if (type && type->kind == MN_TEXT && !strcmp(type->as.text, types[i])) out->type = i;
  const mn_config_part parts[] = {{common, out}, {own_fields(out->type), out}};
  for (int i = 0; i < 2; i++) mn_config_defaults(parts[i].fields, out);
  MN_TRY(mn_config_parse(arena, reads, "reads", parts, 2));
  return check(out, reads);
}

const mn_value *mn_features_to_value(mn_arena *arena, const mn_features *f) {
  mn_features own = *f;
  const char **names = mn_arena_alloc(arena, (size_t)(f->labels.count + 1) * sizeof *names);
  if (!names) return NULL;
  for (int i = 0; i < f->labels.count; i++) {
    mn_text t = {0};
    mn_text_add_utf8(&t, f->labels.items[i], strlen(f->labels.items[i]));
    names[i] = mn_text_status(&t) == MN_OK ? mn_arena_strdup(arena, t.data) : NULL;
    mn_text_free(&t);
    if (!names[i]) return NULL;
  }
  own.labels = (mn_strings){names, f->labels.count};
  const mn_config_part parts[] = {{common, &own}, {own_fields(f->type), &own}};
  return mn_config_to_value(arena, parts, 2);
}

void mn_features_scale(const mn_features *f, const float *energy, float *out) {
  for (int64_t c = 0; c < f->bands; c++) out[c] = (float)(((double)energy[c] - f->band_mean.items[c]) / f->band_deviation.items[c]);
}
