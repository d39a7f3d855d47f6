/* verb_classify.c - `mneme classify`: what a sound, a picture or a stream of frames is, said by a trained classifier as early as it can. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/table.h"
#include "base/text.h"
#include "cli/cli.h"
#include "checkpoint/bundle.h"
#include "run/session.h"
#include "run/whole.h"
#include "source/frame_reader.h"

typedef struct work {
  mn_cli *cli;
  const char *dir, *file;
  mn_arena *arena;
  mn_bundle bundle;
  mn_features *features; /* NULL: the model says nothing of what it was trained on */
  mn_session *session;   /* a model that is a stream; else */
  mn_whole *whole;       /* one that reads a whole         */
  int64_t classes, channels, late, every, most, top, hold;
  double confidence; /* 0: the end is waited for */
  int format;
  char **label; /* [classes]; NULL: numbers */
  float *frames, *said;
  double *p;
  int32_t *order; /* [classes], the likeliest first */
} work;

/* ---- what is said ---- */
static void rank(work *w, const float *logits) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < w->classes; i++) most = fmax(most, (double)logits[i]);
  for (int64_t i = 0; i < w->classes; i++) sum += w->p[i] = exp((double)logits[i] - most);
  for (int64_t i = 0; i < w->classes; i++) w->p[i] /= sum, w->order[i] = (int32_t)i;
  for (int64_t k = 0; k < w->top; k++)
    for (int64_t i = k + 1; i < w->classes; i++)
      if (w->p[w->order[i]] > w->p[w->order[k]]) {
        const int32_t other = w->order[k];
        w->order[k] = w->order[i];
        w->order[i] = other;
      }
}

static const char *label_of(const work *w, int32_t class, char buf[32]) {
  if (w->label) return w->label[class];
  snprintf(buf, 32, "%d", (int)class);
  return buf;
}

static json_t *candidate(const work *w, int64_t k) {
  char buf[32];
  const int32_t class = w->order[k];
  return json_pack("{s:o,s:i,s:f}", "label", mn_cli_text(label_of(w, class, buf)), "class", (int)class, "probability", w->p[class]);
}

/* decision: "so far", "early" or "whole". frames: how many were read by then; 0: it is no sequence. */
static void say(work *w, const char *decision, int64_t frames, double seconds) {
  char buf[32];
  if (w->cli->json) {
    json_t *j = candidate(w, 0), *top = json_array();
    for (int64_t k = 0; k < w->top; k++) json_array_append_new(top, candidate(w, k));
    json_object_set_new(j, "file", mn_cli_text(w->file));
    json_object_set_new(j, "decision", json_string(decision));
    json_object_set_new(j, "frames", frames ? json_integer(frames) : json_null());
    json_object_set_new(j, "seconds", mn_cli_number(seconds));
    json_object_set_new(j, "streamed", json_boolean(w->session != NULL));
    json_object_set_new(j, "top", top);
    mn_cli_json_line(w->cli, j);
    return;
  }
  mn_print("%s  %s  %.4f  %s", w->file, label_of(w, w->order[0], buf), w->p[w->order[0]], decision);
  if (frames) mn_print("  %" PRId64 " frames", frames);
  if (isfinite(seconds)) mn_print("  %.3f s", seconds);
  mn_print("\n");
  for (int64_t k = 1; k < w->top; k++) mn_print("    %s  %.4f\n", label_of(w, w->order[k], buf), w->p[w->order[k]]);
  mn_print_flush();
}

/* ---- a file ---- */
static void longer(const work *w, const mn_frame_reader *r) {
  mn_cli_note(w->cli, "%s is longer than %" PRId64 " frames; what follows is not read%s", mn_frame_reader_name(r), w->most,
              mn_cli_given(w->cli, "frames") ? "" : ", as in training (--frames N reads more)");
}

/* Frame by frame: the first place at which the likeliest class is as likely as asked for, or the end. */
static mn_status stream(work *w, mn_frame_reader *r) {
  const float *logits;
  const bool early = w->confidence > 0 || w->every > 0;
  int64_t n = 0, held = 0;
  int32_t before = -1;
  MN_TRY(mn_session_reset(w->session));
  for (bool got = true;; n++) {
    MN_TRY(mn_frame_reader_next(r, w->frames, &got));
    if (!got) break;
    if (n == w->most) {
      longer(w, r);
      break;
    }
    if (mn_cli_interrupted()) return mn_fail(MN_ERR_CANCELLED, "interrupted after %" PRId64 " frames of %s", n, w->file);
    MN_TRY(mn_session_feed_frames(w->session, w->frames, 1, early ? w->said : NULL));
    if (!early || n < w->late) continue;
    rank(w, w->said);
    const bool sure = w->confidence > 0 && w->p[w->order[0]] >= w->confidence;
    held = !sure ? 0 : w->order[0] == before ? held + 1 : 1;
    before = w->order[0];
    if (sure && held >= w->hold) return say(w, "early", n + 1, mn_frame_reader_seconds(r)), MN_OK;
    if (w->every && (n + 1) % w->every == 0) say(w, "so far", n + 1, mn_frame_reader_seconds(r));
  }
  if (!n) return mn_fail(MN_ERR_FORMAT, "%s: holds no frame", mn_frame_reader_name(r));
  MN_TRY(mn_session_judge(w->session, &logits));
  rank(w, logits);
  say(w, "whole", n, mn_frame_reader_seconds(r));
  return MN_OK;
}

static mn_status read_whole(work *w, mn_frame_reader *r) {
  const float *logits;
  int64_t n = 0, room = 0;
  for (bool got = true;; n++) {
    if (n == room) {
      room = room ? 2 * room : 128;
      float *more = mn_realloc(w->frames, (size_t)(room * w->channels) * sizeof *more);
      if (!more) return MN_ERR_MEMORY;
      w->frames = more;
    }
    MN_TRY(mn_frame_reader_next(r, w->frames + n * w->channels, &got));
    if (!got) break;
    if (n == w->most) {
      longer(w, r);
      break;
    }
    if (mn_cli_interrupted()) return mn_fail(MN_ERR_CANCELLED, "interrupted after %" PRId64 " frames of %s", n, w->file);
  }
  if (!n) return mn_fail(MN_ERR_FORMAT, "%s: holds no frame", mn_frame_reader_name(r));
  const bool sound = w->features && w->features->type == MN_FEATURES_AUDIO;
  MN_TRY(mn_whole_frames(w->whole, w->frames, n, sound && n < w->features->frames ? w->features->frames : n, &logits));
  rank(w, logits);
  say(w, "whole", n, mn_frame_reader_seconds(r));
  return MN_OK;
}

static mn_status classify_picture(work *w) {
  const float *logits;
  MN_TRY(mn_read_picture(w->file, w->features, w->frames));
  MN_TRY(mn_whole_image(w->whole, w->frames, &logits));
  rank(w, logits);
  say(w, "whole", 0, (double)NAN);
  return MN_OK;
}

static mn_status classify(work *w) {
  mn_frame_reader *r;
  if (!w->channels) return classify_picture(w);
  MN_TRY(mn_frame_reader_open(w->file, (mn_frame_format)w->format, w->features, w->channels, &r));
  mn_status status = w->session ? stream(w, r) : read_whole(w, r);
  mn_frame_reader_close(r);
  return status;
}

/* ---- getting ready ---- */
/* One name a line, as many as classes. */
static mn_status read_labels(work *w, const char *path) {
  char *text;
  size_t size;
  MN_TRY(mn_file_read(path, 1 << 24, &text, &size));
  mn_table lines = {.arena = w->arena, .names = true};
  int64_t n = 0;
  w->label = mn_arena_alloc(w->arena, (size_t)w->classes * sizeof *w->label);
  mn_status status = w->label ? MN_OK : MN_ERR_MEMORY;
  for (char *line = text + mn_utf8_mark(text, size), *end; status == MN_OK && line < text + size; line = end + 1, n++) {
    end = memchr(line, '\n', (size_t)(text + size - line));
    if (!end) end = text + size;
    const size_t length = (size_t)(end - line) - (end > line && end[-1] == '\r');
    char *name = mn_arena_format(w->arena, "%.*s", (int)length, line);
    const int before = name ? mn_table_find(&lines, name, 0) : 0;
    if (!name) status = MN_ERR_MEMORY;
    else if (!length) status = mn_fail(MN_ERR_CONFIG, "--labels %s: line %" PRId64 " is empty; each line names a class", path, n + 1);
    else if (!mn_utf8_plain(line, length))
      status = mn_fail(MN_ERR_CONFIG, "--labels %s: line %" PRId64 " is no name: it has control characters or is not UTF-8", path, n + 1);
    else if (before)
      status = mn_fail(MN_ERR_CONFIG, "--labels %s: lines %d and %" PRId64 " name the same class '%s'", path, before, n + 1, name);
    else status = mn_table_put(&lines, name, (int)n + 1);
    if (n < w->classes) w->label[n] = name;
  }
  free(text);
  if (status == MN_OK && n != w->classes)
    status = mn_fail(MN_ERR_CONFIG, "--labels %s: has %" PRId64 " lines; the model has %" PRId64 " classes", path, n, w->classes);
  return status;
}

static mn_status name_classes(work *w) {
  const char *path = mn_cli_get(w->cli, "labels");
  if (path) return read_labels(w, path);
  const mn_strings *own = w->features ? &w->features->labels : NULL;
  if (!own || !own->count) return MN_OK;
  if (own->count != w->classes)
    return mn_fail(MN_ERR_CONFIG,
                   "%s/config.json: reads.labels has %d names; the model has %" PRId64 " classes: name them "
                   "by --labels FILE, one a line",
                   w->dir, own->count, w->classes);
  w->label = mn_arena_alloc(w->arena, (size_t)w->classes * sizeof *w->label);
  if (!w->label) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < w->classes; i++)
    if (!(w->label[i] = mn_arena_strdup(w->arena, own->items[i]))) return MN_ERR_MEMORY;
  return MN_OK;
}

/* The model's input has the size of what its training made of a file. */
static mn_status check_features(const work *w) {
  const mn_model *m = w->bundle.model;
  const mn_features *f = w->features;
  const mn_shape shape = mn_model_shape(m, m->inputs, (mn_sizes){1, 1, 1});
  const int64_t each = !f ? w->channels : f->type == MN_FEATURES_AUDIO ? f->bands : f->rows ? f->width * f->channels : 0;
  const bool picture = f && f->type == MN_FEATURES_IMAGES && !f->rows;
  if (!w->channels && !picture)
    return mn_fail(MN_ERR_CONFIG, "%s/config.json does not say which pictures this model reads (reads); train it with this version",
                   w->dir);
  if (picture ? w->channels || shape.dim[1] != f->height || shape.dim[2] != f->width || shape.dim[3] != f->channels : each != w->channels)
    return mn_fail(MN_ERR_CONFIG, "%s/config.json: what `reads` says does not fit the model's input `%s`", w->dir, m->inputs->name);
  return MN_OK;
}

static mn_status read_features(work *w) {
  const mn_value *reads = w->bundle.model->reads;
  if (!reads) return MN_OK;
  w->features = mn_arena_alloc(w->arena, sizeof *w->features);
  if (!w->features) return MN_ERR_MEMORY;
  return mn_context(mn_features_parse(w->arena, reads, w->features), "%s/config.json", w->dir);
}

/* A stream where it is one; else it reads the whole, and that is said. */
static mn_status open_model(work *w, mn_dtype compute) {
  const mn_model *m = w->bundle.model;
  MN_TRY(mn_whole_new(m, w->bundle.params, compute, &w->whole)); /* what is no classifier is refused here */
  w->classes = mn_whole_classes(w->whole);
  if (!strcmp(m->inputs->name, "frames")) w->channels = mn_model_shape(m, m->inputs, (mn_sizes){1, 1, 1}).dim[2];
  if (!w->channels)
    return mn_cli_only(w->cli, false, "a classifier of sequences; this one reads pictures", "confidence hold every frames as");
  if (mn_model_check_stream(m) == MN_OK) {
    mn_whole_free(w->whole);
    w->whole = NULL;
    MN_TRY(mn_session_new(m, w->bundle.params, &(mn_session_config){.compute = compute, .prefill = 1}, &w->session));
    w->late = mn_session_late(w->session);
    return MN_OK;
  }
  mn_cli_note(w->cli, "%s; each file is read whole before it is classified", mn_message());
  return mn_cli_only(w->cli, false, "a classifier that is a stream; this one reads the whole before it says anything",
                     "confidence hold every");
}

static mn_status allocate(work *w) {
  const mn_features *f = w->features;
  const int64_t frame = w->channels ? w->channels : f->height * f->width * f->channels;
  w->frames = mn_alloc((size_t)frame * sizeof *w->frames);
  w->said = mn_alloc((size_t)w->classes * sizeof *w->said);
  w->p = mn_alloc((size_t)w->classes * sizeof *w->p);
  w->order = mn_alloc((size_t)w->classes * sizeof *w->order);
  return w->frames && w->said && w->p && w->order ? MN_OK : MN_ERR_MEMORY;
}

static mn_status set_up(work *w) {
  mn_cli *cli = w->cli;
  mn_dtype compute;
  w->dir = cli->args[0];
  w->top = w->hold = 1;
  MN_TRY(mn_cli_float(cli, "confidence", 0, 1, &w->confidence));
  MN_TRY(mn_cli_int(cli, "hold", 1, INT64_MAX, &w->hold));
  MN_TRY(mn_cli_only(cli, w->confidence > 0, "--confidence, which must hold", "hold"));
  MN_TRY(mn_cli_int(cli, "every", 1, INT64_MAX, &w->every));
  MN_TRY(mn_cli_int(cli, "top", 1, INT64_MAX, &w->top));
  MN_TRY(mn_cli_choice(cli, "as", mn_frame_formats, &w->format));
  MN_TRY(mn_cli_precision(cli, "precision", false, &compute));
  if (mn_cli_given(cli, "confidence") && w->confidence <= 0)
    return mn_fail(MN_ERR_CONFIG, "--confidence: every class is at least as likely as 0; leave it out, and the end decides");
  MN_TRY(mn_bundle_open(w->dir, cli->backend, cli->threads, &w->bundle));
  MN_TRY(open_model(w, compute));
  MN_TRY(read_features(w));
  MN_TRY(check_features(w));
  w->most = w->features && w->features->type == MN_FEATURES_AUDIO ? w->features->frames : INT64_MAX;
  MN_TRY(mn_cli_int(cli, "frames", 1, INT32_MAX, &w->most));
  if (w->top > w->classes) w->top = w->classes;
  MN_TRY(name_classes(w));
  return allocate(w);
}

/* One after the other; a file that cannot be read is said, and does not keep the others from being classified. */
static mn_status classify_all(work *w) {
  mn_cli *cli = w->cli;
  mn_status first = MN_OK;
  int failed = 0, files = cli->n_args - 1;
  for (int i = 1; i <= files; i++) {
    w->file = cli->args[i];
    const mn_status status = classify(w);
    if (status == MN_OK) continue;
    if (files == 1 || status == MN_ERR_CANCELLED || status == MN_ERR_MEMORY) return status;
    if (!failed++) first = status;
    if (!cli->json) mn_print_error(mn_message());
    else mn_cli_json_line(cli, json_pack("{s:o,s:o}", "file", mn_cli_text(w->file), "error", mn_cli_text(mn_message())));
  }
  return failed ? mn_fail(first, "%d of %d files could not be classified; each is named above", failed, files) : MN_OK;
}

static mn_status run(mn_cli *cli) {
  work w = {.cli = cli, .arena = mn_arena_new()};
  mn_status status = w.arena ? set_up(&w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = classify_all(&w);
  mn_session_free(w.session);
  mn_whole_free(w.whole);
  mn_bundle_close(&w.bundle);
  mn_arena_free(w.arena);
  free(w.frames);
  free(w.said);
  free(w.p);
  free(w.order);
  return status;
}

static const mn_option options[] = {
    {"confidence", "P", NULL, "decide at the first frame at which a class has this probability, without waiting for the end", 0},
    {"hold", "N", "1", "with --confidence: for so many frames one after the other", 0},
    {"every", "N", NULL, "say every N frames what it is so far", 0},
    {"top", "K", "1", "so many of the likeliest classes", 0},
    {"labels", "FILE", NULL, "names of the classes, one a line; absent: those that the training kept, or numbers", 0},
    {"as", "WORD", "auto", "what the file holds: wav, s16 or f32 (raw samples of one channel), png, lines; auto: by its first bytes", 0},
    {"frames", "N", NULL, "read at most so many; absent: of a sound as many as in training", 0},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    {0}};
static const char *const examples[] = {"mneme classify runs/digits data/fsdd/7_jackson_0.wav --top 3",
                                       "tail -c +45 data/fsdd/3_jackson_0.wav | mneme classify runs/digits --as s16 --confidence 0.9 -",
                                       "mneme classify runs/digits --every 10 --json data/fsdd/*_0.wav", NULL};
const mn_verb mn_verb_classify = {
    .name = "classify",
    .purpose = MN_VERB_USE,
    .summary = "say what a sound, a picture or a stream of frames is",
    .usage = "DIR FILE|-... [options]",
    .about =
        "Reads WAV files of the rate of the training, raw samples, PNG pictures, or frames as lines of numbers, and prints for each the "
        "class, its probability, and after how many frames it was known. A classifier that is a stream (lmuformer; classifier with mixers "
        "that see no later place) is fed frame by frame as the bytes come, and with --confidence decides as early as it can; one that is "
        "none reads the whole, and says so. Frames given as lines are those before scaling: energies of bands (log10), pixels from 0 to "
        "255; of a model that was trained on tensors, its frames as they are.\nWith --json the output is JSON lines, one for each decision.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS,
    .min_args = 2,
    .max_args = -1,
    .run = run,
};
