/* images.c - pictures and their classes: IDX files, as the MNIST family is stored, or folders with a folder of PNG files for each
 * class. Bytes become (x / 255 - mean) / deviation, by default mean and deviation of the training pictures; in training a picture
 * may be shifted by a few pixels and mirrored, drawn anew in every epoch. */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "format/idx.h"
#include "format/png.h"
#include "source/examples.h"
#include "source/features.h"

typedef struct config {
  const char *images, *labels, *test_images, *test_labels, *folder, *test_folder;
  int64_t channels, shift, rows;
  double validation, mean, deviation;
  bool mirror;
} config;
static const mn_field fields[] = {
    MN_FIELD_STRING(config, images, NULL, "an IDX file of training pictures (plain or .gz)"),
    MN_FIELD_STRING(config, labels, NULL, "and their classes"),
    MN_FIELD_STRING(config, test_images, NULL, "an IDX file of test pictures"),
    MN_FIELD_STRING(config, test_labels, NULL, "and their classes"),
    MN_FIELD_STRING(config, folder, NULL, "instead: a folder of folders, one for each class, of PNG files of one size"),
    MN_FIELD_STRING(config, test_folder, NULL, "the same for the test, with the same classes"),
    MN_FIELD_INT(config, channels, 0, 0, 3, "PNG: 1 grey, 3 colours; 0: as the first file has them"),
    MN_FIELD_FLOAT(config, validation, 0.05, 0, 0.9, "fraction of the training pictures that is held out"),
    MN_FIELD_FLOAT(config, mean, -1, -1, 1, "of the pixels, from 0 to 1; -1: as the training pictures have it"),
    MN_FIELD_FLOAT(config, deviation, 0, 0, 1, "of the pixels; 0: as the training pictures have it"),
    MN_FIELD_INT(config, shift, 0, 0, 64, "training: pictures are moved by up to so many pixels each way"),
    MN_FIELD_BOOL(config, mirror, false, "training: half of the pictures are mirrored, left to right"),
    MN_FIELD_INT(config, rows, 0, 0, 65536,
                 "H: a picture is a sequence of its H rows from the top, field `frames` in place of `images`; 0: a picture"),
    MN_FIELD_END};

typedef struct pictures { /* of training (with what is held out), or of the test */
  int64_t n;
  uint8_t *data; /* [n, H, W, C] */
  int32_t *label;
} pictures;
typedef struct images {
  int64_t H, W, C;
  pictures part[2];
  mn_held_out held_out;
  mn_features features; /* how bytes become numbers */
  mn_strings classes;   /* of folders */
} images;

static mn_status check(const mn_value *map, const char *where, void *c) {
  const config *o = c;
  if (!o->images == !o->folder) return mn_config_fail(map, where, "images", "or folder must be given, and not both");
  if (o->images && !o->labels) return mn_config_fail(map, where, "labels", "is missing: the classes of data.images");
  if (!o->images && (o->labels || o->test_images || o->test_labels))
    return mn_config_fail(map, where,
                          o->labels        ? "labels"
                          : o->test_images ? "test_images"
                                           : "test_labels",
                          "belongs to images, not to a folder");
  if (o->images && o->test_folder) return mn_config_fail(map, where, "test_folder", "belongs to folder; give test_images and test_labels");
  if (!o->test_images != !o->test_labels)
    return mn_config_fail(map, where, o->test_images ? "test_labels" : "test_images", "is missing: pictures and classes go together");
  if (o->images && mn_config_given(map, "channels")) return mn_config_fail(map, where, "channels", "is for PNG files; IDX files are grey");
  return MN_OK;
}

static mn_status seq_len(const void *c, int64_t *out) {
  const config *o = c;
  *out = o->rows ? o->rows : 1;
  return MN_OK;
}

/* ---- IDX ---- */

static mn_status read_idx(images *x, const char *file, const char *labels, const char *key, pictures *out, int64_t *classes) {
  mn_idx a, b = {0};
  MN_TRY(mn_context(mn_idx_read(file, &a), "data.%s", key));
  const char *labels_key = strcmp(key, "images") ? "test_labels" : "labels";
  mn_status status = mn_context(mn_idx_read(labels, &b), "data.%s", labels_key);
  if (status == MN_OK && (a.ndim < 3 || (a.ndim == 4 && a.dim[3] != 1 && a.dim[3] != 3)))
    status = mn_fail(MN_ERR_FORMAT, "data.%s: %s has %d axes; pictures have three: how many, height, width", key, file, a.ndim);
  if (status == MN_OK && b.ndim != 1)
    status = mn_fail(MN_ERR_FORMAT, "data.%s: %s has %d axes; classes have one, a class for each picture", labels_key, labels, b.ndim);
  if (status == MN_OK && b.dim[0] != a.dim[0])
    status = mn_fail(MN_ERR_FORMAT, "data.%s: %s has %lld pictures, but data.%s: %s has %lld classes: the two must be of one set", key,
                     file, (long long)a.dim[0], labels_key, labels, (long long)b.dim[0]);
  int64_t C = a.ndim == 4 ? a.dim[3] : 1;
  if (status == MN_OK && x->H && (x->H != a.dim[1] || x->W != a.dim[2] || x->C != C))
    status = mn_fail(MN_ERR_FORMAT, "data.%s: pictures of %s are %lld x %lld x %lld, those of training %lld x %lld x %lld", key, file,
                     (long long)a.dim[1], (long long)a.dim[2], (long long)C, (long long)x->H, (long long)x->W, (long long)x->C);
  if (status == MN_OK && !(out->label = mn_alloc((size_t)b.dim[0] * sizeof *out->label))) status = MN_ERR_MEMORY;
  if (status == MN_OK) {
    x->H = a.dim[1], x->W = a.dim[2], x->C = C;
    out->n = a.dim[0];
    out->data = a.data;
    a.data = NULL;
    for (int64_t i = 0; i < out->n; i++) {
      out->label[i] = b.data[i];
      if (b.data[i] >= *classes) *classes = b.data[i] + 1;
    }
  }
  mn_idx_free(&a);
  mn_idx_free(&b);
  return status;
}

/* ---- folders ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Names in a directory, sorted; without those that begin with a dot. `ending`: of files (NULL: directories). */
static mn_status list(mn_source *s, const char *dir, const char *ending, mn_strings *out) {
  DIR *d = opendir(dir);
  if (!d) return mn_fail(MN_ERR_IO, "%s is not a folder that can be read", dir);
  const char **names = NULL;
  size_t n = 0, cap = 0;
  mn_status status = MN_OK;
  for (struct dirent *e; status == MN_OK && (e = readdir(d));) {
    size_t k = strlen(e->d_name);
    if (e->d_name[0] == '.' || (ending && (k < strlen(ending) || strcmp(e->d_name + k - strlen(ending), ending)))) continue;
    if (n == cap) {
      const char **more = mn_realloc(names, (cap = cap ? 2 * cap : 64) * sizeof *names);
      if (!more) status = MN_ERR_MEMORY;
      else names = more;
    }
    char *path = status == MN_OK ? mn_arena_format(s->arena, "%s/%s", dir, e->d_name) : NULL;
    mn_file_info info;
    if (status == MN_OK && !path) status = MN_ERR_MEMORY;
    if (status == MN_OK && !ending && (mn_file_stat(path, &info) != MN_OK || !info.is_dir)) continue;
    if (status == MN_OK) names[n++] = ending ? path : path + strlen(dir) + 1;
  }
  closedir(d);
  if (n) qsort(names, n, sizeof *names, by_name);
  const char **kept = status == MN_OK ? mn_arena_alloc(s->arena, (n + 1) * sizeof *kept) : NULL;
  if (kept && n) memcpy(kept, names, n * sizeof *kept);
  free(names);
  *out = (mn_strings){kept, (int)n};
  return status == MN_OK && !kept ? MN_ERR_MEMORY : status;
}

static mn_status add_picture(images *x, const config *o, const char *file, int32_t label, pictures *out, int64_t *cap) {
  mn_png p;
  MN_TRY(mn_png_read(file, (int)o->channels, &p));
  if (!x->H) x->H = p.height, x->W = p.width, x->C = p.channels;
  size_t size = (size_t)(x->H * x->W * x->C);
  mn_status status = MN_OK;
  if (p.height != x->H || p.width != x->W)
    status = mn_fail(MN_ERR_FORMAT, "%s has %lld x %lld pixels, the first picture %lld x %lld: all must be of one size", file,
                     (long long)p.height, (long long)p.width, (long long)x->H, (long long)x->W);
  else if (p.channels != x->C)
    status = mn_fail(MN_ERR_FORMAT, "%s is %s, the first picture %s: say with data.channels: 1 (grey) or 3 (colours) what all become", file,
                     p.channels == 1 ? "grey" : "in colours", x->C == 1 ? "grey" : "in colours");
  if (status == MN_OK && out->n == *cap) {
    *cap = *cap ? 2 * *cap : 64;
    uint8_t *data = mn_realloc(out->data, (size_t)*cap * size);
    if (data) out->data = data;
    int32_t *labels = data ? mn_realloc(out->label, (size_t)*cap * sizeof *labels) : NULL;
    if (labels) out->label = labels;
    else status = MN_ERR_MEMORY;
  }
  if (status == MN_OK) {
    memcpy(out->data + (size_t)out->n * size, p.data, size);
    out->label[out->n++] = label;
    status = mn_stop_check("pictures were read");
  }
  mn_png_free(&p);
  return status;
}

static mn_status read_folder(mn_source *s, images *x, const char *folder, const char *key, pictures *out) {
  mn_strings classes, files;
  MN_TRY(mn_context(list(s, folder, NULL, &classes), "data.%s", key));
  if (!classes.count) return mn_fail(MN_ERR_CONFIG, "data.%s: %s holds no folder: each class is a folder of PNG files", key, folder);
  if (!x->classes.count) x->classes = classes;
  int64_t cap = 0;
  for (int i = 0, label = 0; i < classes.count; i++) {
    for (label = 0; label < x->classes.count && strcmp(x->classes.items[label], classes.items[i]) != 0;) label++;
    if (label == x->classes.count)
      return mn_fail(MN_ERR_CONFIG, "data.%s: %s/%s is a class that data.folder does not have", key, folder, classes.items[i]);
    char *dir = mn_arena_format(s->arena, "%s/%s", folder, classes.items[i]);
    if (!dir) return MN_ERR_MEMORY;
    MN_TRY(list(s, dir, ".png", &files));
    for (int k = 0; k < files.count; k++) MN_TRY(mn_context(add_picture(x, s->config, files.items[k], label, out, &cap), "data.%s", key));
  }
  return out->n ? MN_OK : mn_fail(MN_ERR_CONFIG, "data.%s: the folders of %s hold no .png file", key, folder);
}

/* ---- opening ---- */

static void measure(const config *o, images *x) {
  double histogram[256] = {0}, n = 0, sum = 0, square = 0;
  size_t size = (size_t)(x->H * x->W * x->C);
  for (int64_t i = 0, count = mn_held_out_count(&x->held_out, false); i < count; i++) {
    const uint8_t *p = x->part[0].data + (size_t)mn_held_out_at(&x->held_out, false, i) * size;
    for (size_t k = 0; k < size; k++) histogram[p[k]]++;
  }
  for (int v = 0; v < 256; v++) n += histogram[v], sum += histogram[v] * v / 255.0;
  x->features.mean = o->mean >= 0 ? o->mean : n > 0 ? sum / n : 0;
  for (int v = 0; v < 256; v++) square += histogram[v] * (v / 255.0 - x->features.mean) * (v / 255.0 - x->features.mean);
  x->features.deviation = o->deviation > 0 ? o->deviation : n > 0 && square > 0 ? sqrt(square / n) : 1;
}

static mn_status identify(mn_source *s, const images *x) {
  char hex[MN_HASH_HEX];
  for (int k = 0; k < 2; k++) {
    const pictures *p = &x->part[k];
    if (!p->n) continue;
    mn_content_hash(p->data, (size_t)(p->n * x->H * x->W * x->C), hex);
    mn_text_addf(&s->identity, "%s ", hex);
    mn_content_hash(p->label, (size_t)p->n * sizeof *p->label, hex);
    mn_text_addf(&s->identity, "%s ", hex);
  }
  const config *o = s->config;
  mn_text_addf(&s->identity, "held out %lld mean %.17g deviation %.17g shift %lld mirror %d", (long long)x->held_out.held, x->features.mean,
               x->features.deviation, (long long)o->shift, o->mirror);
  return MN_OK;
}

static mn_status open_images(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  images *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  if (!x) return MN_ERR_MEMORY;
  if (o->images) {
    MN_TRY(read_idx(x, o->images, o->labels, "images", &x->part[0], &s->classes));
    if (o->test_images) MN_TRY(read_idx(x, o->test_images, o->test_labels, "test_images", &x->part[1], &s->classes));
  } else {
    MN_TRY(read_folder(s, x, o->folder, "folder", &x->part[0]));
    s->classes = x->classes.count;
    if (o->test_folder) MN_TRY(read_folder(s, x, o->test_folder, "test_folder", &x->part[1]));
  }
  if (o->rows && o->rows != x->H)
    return mn_fail(MN_ERR_CONFIG, "data.rows is %lld, but the pictures have %lld rows", (long long)o->rows, (long long)x->H);
  x->held_out = mn_hold_out(x->part[0].n, o->validation);
  MN_TRY(mn_held_out_warn(&x->held_out, x->part[0].label, sizeof *x->part[0].label, s->classes, &x->classes));
  x->features =
      (mn_features){.type = MN_FEATURES_IMAGES, .labels = x->classes, .height = x->H, .width = x->W, .channels = x->C, .rows = o->rows > 0};
  measure(o, x);
  s->seq_len = o->rows ? o->rows : 1;
  return identify(s, x);
}

static void close_images(mn_source *s) {
  images *x = s->data;
  for (int k = 0; x && k < 2; k++) {
    free(x->part[k].data);
    free(x->part[k].label);
  }
}

/* ---- batches ---- */

static void layout(const mn_source *s, mn_batch *batch) {
  const images *x = s->data;
  const config *o = s->config;
  if (o->rows) mn_batch_add(batch, "frames", MN_F32, MN_SHAPE(batch->B, x->H, x->W * x->C), "pictures, scaled, row by row");
  else mn_batch_add(batch, "images", MN_F32, MN_SHAPE(batch->B, x->H, x->W, x->C), "pictures, scaled");
  mn_batch_add(batch, "label", MN_I32, MN_SHAPE(batch->B), "class of the picture");
}

static int64_t count(const mn_source *s, int split) {
  const images *x = s->data;
  return split == MN_SPLIT_TEST ? x->part[1].n : mn_held_out_count(&x->held_out, split == MN_SPLIT_VALIDATION);
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  const config *o = s->config;
  const images *x = s->data;
  int64_t i = split == MN_SPLIT_TEST ? index : mn_held_out_at(&x->held_out, split == MN_SPLIT_VALIDATION, index);
  const pictures *p = &x->part[split == MN_SPLIT_TEST];
  const uint8_t *from = p->data + (size_t)(i * x->H * x->W * x->C);
  float *to = mn_batch_row(batch, 0, b);
  int64_t dy = 0, dx = 0;
  bool mirrored = false;
  if (split == MN_SPLIT_TRAIN) {
    uint64_t key = mn_random_key((uint64_t)s->seed, "augment");
    double side = (double)(2 * o->shift + 1);
    dy = (int64_t)(mn_random_uniform(key, epoch, 3 * (uint64_t)i) * side) - o->shift;
    dx = (int64_t)(mn_random_uniform(key, epoch, 3 * (uint64_t)i + 1) * side) - o->shift;
    mirrored = o->mirror && mn_random_uniform(key, epoch, 3 * (uint64_t)i + 2) < 0.5;
  }
  for (int64_t y = 0; y < x->H; y++)
    for (int64_t w = 0; w < x->W; w++) {
      int64_t sy = y + dy, sx = (mirrored ? x->W - 1 - w : w) + dx;
      bool inside = sy >= 0 && sy < x->H && sx >= 0 && sx < x->W;
      for (int64_t c = 0; c < x->C; c++) {
        *to++ = mn_features_pixel(&x->features, inside ? from[(sy * x->W + sx) * x->C + c] : 0);
      }
    }
  *(int32_t *)mn_batch_row(batch, 1, b) = p->label[i];
  return MN_OK;
}

static const mn_value *reads(const mn_source *s, mn_arena *arena) {
  return mn_features_to_value(arena, &((const images *)s->data)->features);
}

const mn_source_def mn_source_images = {
    .name = "images",
    .summary = "pictures and their classes: IDX files, or folders of PNG files",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .seq_len = seq_len,
    .open = open_images,
    .close = close_images,
    .reads = reads,
    .layout = layout,
    .count = count,
    .example = example,
};
