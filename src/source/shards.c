/* shards.c - a text file becomes a shard: its ids, little-endian, 16 bits wide where the vocabulary allows, then a
 * footer that says what they are. A shard whose footer, length or hash does not fit is made again, as is one that was cut
 * short or changed while it was looked at. */
#define _GNU_SOURCE
#include "source/shards.h"

#include "format/spelled.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 20 };

typedef struct footer { /* at the end of the file: what precedes it is written as it comes */
  char magic[8];
  uint32_t version, width;
  int64_t n, text_bytes;
  uint64_t hash; /* of the blocks of BLOCK bytes, chained, and since version 2 of this footer with 0 in this place */
  char key[MN_HASH_HEX + 7];
} footer;
static const char magic[8] = "mnshard";
enum { VERSION = 2, FIRST_VERSION = 1, KEY_VERSION = 1 /* of how ids are made: another one is another file */ };

static uint64_t hash_block(uint64_t before, const void *data, size_t n) {
  char hex[MN_HASH_HEX];
  mn_content_hash(data, n, hex);
  return mn_hash_bytes(hex, MN_HASH_HEX - 1, before);
}

static uint64_t hash_footer(uint64_t before, footer f) {
  f.hash = 0;
  return hash_block(before, &f, sizeof f);
}

static mn_status make_key(const shard_options *o, const char *path, char content[MN_HASH_HEX], char key[MN_HASH_HEX]) {
  char tokenizer[33];
  MN_TRY(mn_file_hash(path, content));
  mn_tokenizer_hash(o->tok, tokenizer);
  mn_text t = {0};
  mn_text_addf(&t, "%d %s %s %d ", KEY_VERSION, content, tokenizer, o->separator != NULL);
  mn_text_add(&t, o->separator ? o->separator : "");
  mn_status status = mn_text_status(&t);
  if (status == MN_OK) mn_content_hash(t.data, t.len, key);
  mn_text_free(&t);
  return status;
}

/* ---- reading ---- */

/* Maps the shard and checks all of it. False: there is none, or it is not what it says; *why is NULL when it is
 * missing. */
static bool open_checked(const char *path, const char *key, const mn_tokenizer *tok, shard *s, const char **why) {
  memset(s, 0, sizeof *s);
  *why = NULL;
  if (!mn_file_exists(path)) return false;
  *why = "it cannot be read";
  if (mn_map_open(path, &s->map) != MN_OK) return false;
  footer f;
  *why = "it is cut short or not a shard";
  if (s->map.size < sizeof f) return false;
  size_t payload = s->map.size - sizeof f;
  memcpy(&f, s->map.data + payload, sizeof f);
  if (memcmp(f.magic, magic, sizeof magic) || f.version < FIRST_VERSION || f.version > VERSION || (f.width != 2 && f.width != 4))
    return false;
  if (f.n < 0 || (uint64_t)f.n != payload / f.width || payload % f.width) return false;
  *why = "it belongs to other data";
  if (strncmp(f.key, key, MN_HASH_HEX)) return false;
  *why = "its content has changed";
  uint64_t hash = 0;
  for (size_t at = 0; at < payload && !mn_stopped(); at += BLOCK)
    hash = hash_block(hash, s->map.data + at, payload - at < BLOCK ? payload - at : BLOCK);
  if (f.version > FIRST_VERSION) hash = hash_footer(hash, f);
  if (hash != f.hash) return false;
  s->width = (int)f.width;
  s->n = f.n;
  s->text_bytes = f.text_bytes;
  memcpy(s->key, key, MN_HASH_HEX);
  int32_t vocab_size = mn_tokenizer_vocab_size(tok), top = 0;
  for (int64_t i = 0; i < s->n && (i % BLOCK || !mn_stopped()); i++) {
    int32_t id = mn_shard_id(s, i);
    top = (uint32_t)id > (uint32_t)top ? id : top;
  }
  *why = "it holds ids outside the vocabulary";
  if ((uint32_t)top >= (uint32_t)vocab_size) return false;
  *why = "it was cut short or changed meanwhile";
  return mn_map_check(&s->map) == MN_OK;
}

/* ---- writing ---- */

typedef struct writing {
  mn_file_writer *file;
  footer f;
  size_t used;
  unsigned char block[BLOCK];
} writing;

static mn_status write_block(writing *w) {
  if (!w->used) return MN_OK;
  w->f.hash = hash_block(w->f.hash, w->block, w->used);
  size_t n = w->used;
  w->used = 0;
  return mn_file_writer_append(w->file, w->block, n);
}

static mn_status write_ids(void *ctx, const int32_t *ids, size_t n) {
  writing *w = ctx;
  for (size_t i = 0; i < n; i++) {
    if (w->f.width == 2) memcpy(w->block + w->used, &(uint16_t){(uint16_t)ids[i]}, 2);
    else memcpy(w->block + w->used, &ids[i], 4);
    w->used += w->f.width;
    if (w->used == BLOCK) MN_TRY(write_block(w));
  }
  w->f.n += (int64_t)n;
  return MN_OK;
}

static mn_status check_text(const shard_options *o, const char *path, const mn_map *text) {
  if (!text->size) return mn_fail(MN_ERR_CONFIG, "%s is empty; name a file with text in data.files, or leave this one out", path);
  size_t valid = mn_utf8_valid((const char *)text->data, text->size);
  if (valid == text->size) return MN_OK;
  bool cut = text->size - valid < 4;
  if (mn_tokenizer_is_bytes(o->tok)) {
    mn_log_write(MN_LOG_INFO, "%s is not UTF-8 (at byte %zu); it is read as plain bytes", path, valid);
    return MN_OK;
  }
  return mn_fail(MN_ERR_FORMAT,
                 "%s is not UTF-8: byte %zu of %zu is 0x%02x%s; convert it (iconv -f LATIN1 -t UTF-8), or train on bytes "
                 "(tokenizer: bytes)",
                 path, valid, text->size, text->data[valid], cut ? ", in the last character, so the file may be truncated" : "");
}

/* Where the next separator begins in s[0..n), or n. */
static size_t find_separator(const char *s, size_t n, const char *separator) {
  if (!separator || !*separator) return n;
  const char *at = memmem(s, n, separator, strlen(separator));
  return at ? (size_t)(at - s) : n;
}

static mn_status write_documents(const shard_options *o, const char *path, const mn_map *text, writing *w) {
  mn_encoder *enc;
  MN_TRY(mn_encoder_new(o->tok, &enc));
  mn_ids ids = {.flush = write_ids, .ctx = w};
  int32_t eos = mn_tokenizer_eos(o->tok);
  const char *s = (const char *)text->data;
  size_t skip = o->separator ? strlen(o->separator) : 0;
  mn_status status = MN_OK;
  enum { REPORT = 1 << 20 };
  size_t reported = 0;
  mn_spelled spelled = {0};
  for (size_t at = 0; at < text->size && status == MN_OK;) {
    size_t n = find_separator(s + at, text->size - at, o->separator);
    if (n) status = mn_encoder_add(enc, s + at, n, 0, &ids);
    mn_spelled_add(&spelled, s + at, n);
    if (n && eos >= 0 && status == MN_OK) status = mn_ids_add(&ids, eos);
    at += n;
    if (at < text->size) at += skip;
    if (status == MN_OK && (at - reported >= REPORT || at == text->size)) {
      reported = at;
      status = mn_map_check(text);
      if (status == MN_OK && !mn_watch_tell(o->watch, path, (int64_t)at, (int64_t)text->size))
        status = mn_fail(MN_ERR_CANCELLED, "interrupted while tokenising %s", path);
    }
  }
  if (status == MN_OK && spelled.count >= MN_SPELLED_MANY)
    mn_log_write(MN_LOG_WARN,
                 "%s spells out %s %lld times: that is read as the text it is, not as a special token; where documents end there, say "
                 "data.separator: \"%s\"",
                 path, spelled.name, (long long)spelled.count, spelled.name);
  if (status == MN_OK) status = write_ids(w, ids.data, ids.len);
  if (status == MN_OK) status = write_block(w);
  mn_ids_free(&ids);
  mn_encoder_free(enc);
  return status;
}

static mn_status make_shard(const shard_options *o, const char *path, const char *shard_path, const char *content, const char *key) {
  mn_map text;
  char again[MN_HASH_HEX];
  MN_TRY(mn_map_open(path, &text));
  mn_status status = check_text(o, path, &text), whole = mn_map_check(&text);
  if (whole != MN_OK) status = whole; /* zeros in place of what is gone are no fault of the text */
  mn_content_hash(text.data, text.size, again);
  if (status == MN_OK && strcmp(again, content) != 0)
    status = mn_fail(MN_ERR_IO, "%s was changed while it was read; leave it alone meanwhile, and begin again", path);
  writing *w = status == MN_OK ? mn_calloc(1, sizeof *w) : NULL;
  if (status == MN_OK && !w) status = MN_ERR_MEMORY;
  if (status == MN_OK)
    status = mn_context(mn_file_writer_open(shard_path, &w->file), "data.cache: set it to a directory that can be written");
  if (status == MN_OK) {
    memcpy(w->f.magic, magic, sizeof magic);
    w->f.version = VERSION;
    w->f.width = mn_tokenizer_vocab_size(o->tok) <= 65536 ? 2 : 4;
    w->f.text_bytes = (int64_t)text.size;
    memcpy(w->f.key, key, MN_HASH_HEX);
    status = write_documents(o, path, &text, w);
    if (status == MN_OK) status = mn_map_check(&text);
    w->f.hash = hash_footer(w->f.hash, w->f);
    if (status == MN_OK) status = mn_file_writer_append(w->file, &w->f, sizeof w->f);
    if (status == MN_OK) status = mn_file_writer_commit(w->file);
    else mn_file_writer_abort(w->file);
  }
  free(w);
  mn_map_close(&text);
  return status;
}

/* A text is read twice and its size must be known: a pipe, a device or a directory is none. */
static mn_status check_regular(const char *path) {
  mn_file_info info;
  MN_TRY(mn_file_stat(path, &info));
  if (!info.exists) return mn_fail(MN_ERR_IO, "could not open %s: there is no such file", path);
  if (info.is_dir) return mn_fail(MN_ERR_CONFIG, "%s is a directory; name its files, as in %s/*.txt", path, path);
  if (!info.is_regular)
    return mn_fail(MN_ERR_CONFIG, "%s is a pipe or a device, not a file; save its text first, or read it with `mneme stream`", path);
  return MN_OK;
}

mn_status mn_shard_open(const shard_options *o, const char *path, shard *out) {
  char content[MN_HASH_HEX], key[MN_HASH_HEX];
  memset(out, 0, sizeof *out);
  MN_TRY(check_regular(path));
  MN_TRY(make_key(o, path, content, key));
  MN_TRY(mn_context(mn_make_dirs(o->cache), "data.cache: set it to a directory that can be written"));
  char *name = mn_format("%s.shard", key), *shard_path = name ? mn_path_join(o->cache, name) : NULL;
  mn_status status = shard_path ? MN_OK : MN_ERR_MEMORY;
  const char *why = NULL;
  if (status == MN_OK && !open_checked(shard_path, key, o->tok, out, &why)) {
    mn_shard_close(out);
    status = mn_stop_check("checking tokenised text");
    if (why && status == MN_OK) mn_log_write(MN_LOG_WARN, "%s is made again from %s: %s", shard_path, path, why);
    if (status == MN_OK) status = make_shard(o, path, shard_path, content, key);
    if (status == MN_OK && !open_checked(shard_path, key, o->tok, out, &why)) {
      mn_shard_close(out);
      status = mn_stop_check("checking tokenised text");
      if (status == MN_OK)
        status =
            mn_fail(MN_ERR_IO, "%s was written but reads back wrong (%s); is the disk sound?", shard_path, why ? why : "it is missing");
    }
  }
  free(name);
  free(shard_path);
  return status;
}

void mn_shard_close(shard *s) {
  mn_map_close(&s->map);
  memset(s, 0, sizeof *s);
}
