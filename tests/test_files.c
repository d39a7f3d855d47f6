/* Files are written whole or not at all, and nobody else's are touched. A full disk is made by this program's own write(), which the
 * static library's calls resolve to. */
#include "base/base.h"
#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

/* ---- a disk that fills up ---- */
static bool disk_limited, sync_fails;
static size_t disk_left;

ssize_t write(int fd, const void *data, size_t n) {
  if (disk_limited && fd > 2) {
    if (n > disk_left) n = disk_left;
    if (n == 0) {
      errno = ENOSPC;
      return -1;
    }
    disk_left -= n;
  }
  return syscall(SYS_write, fd, data, n);
}
/* As on a file system without unnamed files: temporary ones have names then. */
static bool named_only;
int access(const char *path, int mode) {
  if (named_only && !strcmp(path, "/proc/self/fd")) return -1;
  return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}
int fsync(int fd) {
  if (sync_fails) {
    errno = EIO;
    return -1;
  }
  return (int)syscall(SYS_fsync, fd);
}

static char *scratch; /* a directory of this run */

static char *in_scratch(const char *name) {
  static char path[8][512];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", scratch, name);
  return p;
}

static bool content_is(const char *path, const char *expected) {
  char *data;
  size_t n;
  if (mn_file_read(path, 1 << 20, &data, &n) != MN_OK) return false;
  bool same = n == strlen(expected) && !memcmp(data, expected, n);
  free(data);
  return same;
}

static size_t files_in(const char *dir) {
  char **names;
  size_t n;
  if (mn_dir_list(dir, &names, &n) != MN_OK) return 0;
  mn_dir_list_free(names, n);
  return n;
}

static void files_are_read_whole(void) {
  char *path = in_scratch("read"), *data;
  size_t n;
  CHECK_OK(mn_file_write(path, "one\0two", 7));
  CHECK_OK(mn_file_read(path, 7, &data, &n));
  CHECK(n == 7 && !memcmp(data, "one\0two", 8), "the bytes and a zero after them");
  free(data);
  CHECK(mn_file_read(path, 6, &data, &n) == MN_ERR_IO && data == NULL, "the limit holds");
  CHECK(strstr(mn_message(), path) && strstr(mn_message(), "6 bytes"), "%s", mn_message());
  CHECK(mn_file_read(in_scratch("absent"), 10, &data, &n) == MN_ERR_IO, "missing");
  CHECK(strstr(mn_message(), "absent: No such file"), "%s", mn_message());
  CHECK(mn_file_read(scratch, 10, &data, &n) == MN_ERR_IO && strstr(mn_message(), "directory"), "%s", mn_message());
  CHECK_OK(mn_file_write(path, "", 0));
  CHECK_OK(mn_file_read(path, 0, &data, &n));
  CHECK(n == 0 && data && data[0] == 0, "empty file");
  free(data);
}

static void pipes_are_read_to_the_limit(void) {
  int ends[2];
  CHECK(pipe(ends) == 0, "pipe");
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    char block[1000];
    memset(block, 'p', sizeof block);
    for (int i = 0; i < 300; i++)
      if (write(ends[1], block, sizeof block) < 0) break;
    _exit(0);
  }
  close(ends[1]);
  char path[64], *data;
  size_t n;
  snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
  CHECK_OK(mn_file_read(path, 1 << 20, &data, &n));
  CHECK(n == 300000 && data[299999] == 'p', "%zu bytes through a pipe", n);
  free(data);
  close(ends[0]);
  waitpid(child, NULL, 0);
}

static void maps_show_the_bytes(void) {
  char *path = in_scratch("map");
  mn_map map;
  CHECK_OK(mn_file_write(path, "mapped", 6));
  CHECK_OK(mn_map_open(path, &map));
  CHECK(map.size == 6 && !memcmp(map.data, "mapped", 6), "content");
  CHECK_OK(mn_file_write(path, "another", 7));
  CHECK(!memcmp(map.data, "mapped", 6), "a map keeps the file that was replaced under it");
  mn_map_close(&map);
  mn_map_close(&map);
  CHECK_OK(mn_file_write(path, NULL, 0));
  CHECK_OK(mn_map_open(path, &map));
  CHECK(map.size == 0 && !map.data, "an empty file is no error");
  mn_map_close(&map);
  CHECK(mn_map_open(in_scratch("absent"), &map) == MN_ERR_IO, "missing");
  CHECK(mn_map_open("/dev/null", &map) == MN_ERR_IO, "not a regular file");
}

static void writes_replace_whole(void) {
  char *path = in_scratch("whole");
  size_t before = files_in(scratch);
  CHECK_OK(mn_file_write(path, "old", 3));
  mn_file_writer *w;
  CHECK_OK(mn_file_writer_open(path, &w));
  unsigned char *big = malloc(300000);
  for (int i = 0; i < 300000; i++) big[i] = (unsigned char)(i * 7 + i / 251);
  size_t at = 0;
  for (size_t piece = 1; at < 300000; piece = piece * 3 % 100003 + 1) { /* pieces below and above the buffer */
    size_t n = piece < 300000 - at ? piece : 300000 - at;
    CHECK_OK(mn_file_writer_append(w, big + at, n));
    at += n;
  }
  CHECK(content_is(path, "old"), "the old file stays until commit");
  CHECK_OK(mn_file_writer_commit(w));
  char *data;
  size_t n;
  CHECK_OK(mn_file_read(path, 1 << 20, &data, &n));
  CHECK(n == 300000 && !memcmp(data, big, n), "what was appended, in order");
  free(data);
  free(big);
  CHECK_OK(mn_file_writer_open(path, &w));
  CHECK_OK(mn_file_writer_append(w, "x", 1));
  mn_file_writer_abort(w);
  mn_file_writer_abort(NULL);
  CHECK_OK(mn_file_read(path, 1 << 20, &data, &n));
  CHECK(n == 300000, "abort changes nothing");
  free(data);
  CHECK(files_in(scratch) == before + 1, "no temporary file is left");
}

static void full_disk_leaves_the_old_file(void) {
  char *path = in_scratch("full"), expected[700];
  CHECK_OK(mn_file_write(path, "precious", 8));
  size_t before = files_in(scratch);
  char *big = calloc(1, 500000);
  for (int pieces = 0; pieces < 2; pieces++) {
    disk_left = 123456;
    disk_limited = true;
    mn_file_writer *w;
    mn_status opened = mn_file_writer_open(path, &w), status = MN_OK;
    CHECK_OK(opened);
    if (pieces)
      for (int i = 0; i < 500000; i += 500) status = mn_file_writer_append(w, big, 500);
    else status = mn_file_writer_append(w, big, 500000);
    CHECK(status == MN_ERR_IO, "append reports it");
    mn_fail(MN_ERR_ARG, "something else");
    status = mn_file_writer_commit(w);
    disk_limited = false;
    snprintf(expected, sizeof expected, "could not write %s: No space left on device; the previous file is intact", path);
    CHECK(status == MN_ERR_IO && !strcmp(mn_message(), expected), "%s", mn_message());
    CHECK(content_is(path, "precious"), "the old file is intact");
    CHECK(files_in(scratch) == before, "no temporary file is left");
  }
  disk_left = 10;
  disk_limited = true;
  mn_status status = mn_file_write(in_scratch("fresh"), big, 500);
  disk_limited = false;
  CHECK(status == MN_ERR_IO && strstr(mn_message(), "no file was left behind"), "%s", mn_message());
  CHECK(!mn_file_exists(in_scratch("fresh")), "nothing was left");
  sync_fails = true;
  status = mn_file_write(path, "new", 3);
  sync_fails = false;
  CHECK(status == MN_ERR_IO && content_is(path, "precious"), "a failed sync leaves the old file: %s", mn_message());
  free(big);
}

static void a_killed_writer_leaves_the_old_file(void) {
  char *path = in_scratch("killed");
  CHECK_OK(mn_file_write(path, "before", 6));
  int torn = 0;
  for (int round = 0; round < 20; round++) {
    pid_t child = fork();
    if (child == 0) {
      char block[30000];
      for (int i = 0;; i++) {
        memset(block, 'a' + i % 26, sizeof block);
        mn_file_write(path, block, sizeof block);
      }
    }
    usleep((useconds_t)(500 + round * 337));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    char *data;
    size_t n;
    CHECK_OK(mn_file_read(path, 1 << 20, &data, &n));
    bool whole = n == 6 ? !memcmp(data, "before", 6) : n == 30000;
    for (size_t i = 1; whole && n == 30000 && i < n; i++) whole = data[i] == data[0];
    torn += !whole;
    free(data);
  }
  CHECK(torn == 0, "%d of 20 files were torn", torn);
}

static void writes_keep_the_mode(void) {
  char *path = in_scratch("mode");
  struct stat st;
  CHECK_OK(mn_file_write(path, "a", 1));
  chmod(path, 0640);
  CHECK_OK(mn_file_write(path, "b", 1));
  CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640, "mode is kept: %o", (unsigned)st.st_mode & 0777);
  mn_file_writer *w;
  CHECK(mn_file_writer_open(scratch, &w) == MN_ERR_IO && strstr(mn_message(), "directory"), "%s", mn_message());
  CHECK(mn_file_writer_open("/dev/null", &w) == MN_ERR_IO && strstr(mn_message(), "regular"), "%s", mn_message());
  CHECK(mn_file_writer_open(in_scratch("no/such/place"), &w) == MN_ERR_IO && strstr(mn_message(), "No such file"), "%s", mn_message());
  CHECK(mn_file_writer_open("", &w) == MN_ERR_IO, "empty name");
}

static void links_are_replaced_and_never_written_through(void) {
  struct stat st;
  char *target = in_scratch("target"), *link_path = in_scratch("link"), *hard = in_scratch("hard");
  CHECK_OK(mn_file_write(target, "mine", 4));
  CHECK(symlink("target", link_path) == 0 && link(target, hard) == 0, "links");
  CHECK_OK(mn_file_write(link_path, "b", 1));
  CHECK(lstat(link_path, &st) == 0 && S_ISREG(st.st_mode) && content_is(link_path, "b"), "the link is a file now");
  CHECK_OK(mn_file_write(hard, "c", 1));
  CHECK(content_is(hard, "c") && content_is(target, "mine"), "what the links led to is as it was");
  CHECK(symlink("nowhere", in_scratch("dangling")) == 0, "link");
  CHECK_OK(mn_file_write(in_scratch("dangling"), "d", 1));
  CHECK(!mn_file_exists(in_scratch("nowhere")) && content_is(in_scratch("dangling"), "d"), "nor is a file made where a link points");
}

static void what_cannot_be_replaced_is_refused(void) {
  mn_file_writer *w;
  CHECK_OK(mn_file_write(in_scratch("precious"), "p", 1));
  chmod(in_scratch("precious"), 0444);
  CHECK(mn_file_writer_open(in_scratch("precious"), &w) == MN_ERR_IO && strstr(mn_message(), "read-only"), "%s", mn_message());
  CHECK(mkfifo(in_scratch("fifo"), 0666) == 0 && symlink("fifo", in_scratch("to-fifo")) == 0 && symlink(".", in_scratch("to-dir")) == 0,
        "traps");
  CHECK(mn_file_writer_open(in_scratch("fifo"), &w) == MN_ERR_IO && strstr(mn_message(), "regular"), "%s", mn_message());
  CHECK(mn_file_writer_open(in_scratch("to-fifo"), &w) == MN_ERR_IO && strstr(mn_message(), "regular"), "%s", mn_message());
  CHECK(mn_file_writer_open(in_scratch("to-dir"), &w) == MN_ERR_IO && strstr(mn_message(), "directory"), "%s", mn_message());
}

static void pipes_are_read_and_never_waited_for_in_vain(void) {
  char *path = in_scratch("pipe"), *data;
  size_t n;
  mn_map map;
  CHECK(mkfifo(path, 0666) == 0, "fifo");
  CHECK(mn_map_open(path, &map) == MN_ERR_IO && strstr(mn_message(), "regular"), "%s", mn_message());
  CHECK_OK(mn_file_read(path, 1000, &data, &n)); /* nobody writes */
  CHECK(n == 0, "%zu", n);
  free(data);
  pid_t child = fork();
  if (child == 0) {
    int fd = open(path, O_WRONLY);
    for (int i = 0; i < 3; i++) {
      usleep(200000);
      if (write(fd, "word ", 5) != 5) _exit(1);
    }
    _exit(0);
  }
  CHECK_OK(mn_file_read(path, 1000, &data, &n));
  CHECK(n == 15 && !memcmp(data, "word word word ", 15), "%zu bytes", n);
  free(data);
  waitpid(child, NULL, 0);
}

static void a_copy_is_a_file_of_its_own(void) {
  size_t n = 3000001;
  char *big = malloc(n), a[MN_HASH_HEX], b[MN_HASH_HEX], c[MN_HASH_HEX];
  for (size_t i = 0; i < n; i++) big[i] = (char)(i * 7 >> 5);
  CHECK_OK(mn_file_write(in_scratch("from"), big, n));
  CHECK_OK(mn_file_copy(in_scratch("from"), in_scratch("to")));
  CHECK_OK(mn_file_hash(in_scratch("from"), a));
  CHECK_OK(mn_file_hash(in_scratch("to"), b));
  CHECK(!strcmp(a, b), "the same bytes");
  int fd = open(in_scratch("to"), O_WRONLY);
  CHECK(pwrite(fd, "x", 1, 1000) == 1, "written to in place");
  close(fd);
  CHECK_OK(mn_file_hash(in_scratch("from"), c));
  CHECK(!strcmp(a, c), "the first does not change with the second");
  CHECK(mn_file_copy(in_scratch("absent"), in_scratch("to")) == MN_ERR_IO, "missing");
  free(big);
}

static bool is_a_or_b(const char *name) { return !strcmp(name, "a") || !strcmp(name, "b"); }

static int temps_in(const char *dir) {
  char **names;
  size_t n;
  int count = 0;
  CHECK_OK(mn_dir_list(dir, &names, &n));
  for (size_t i = 0; i < n; i++) count += mn_file_is_temp(names[i]);
  mn_dir_list_free(names, n);
  return count;
}

/* A process that begins to write dir/name and then waits: to be killed, or to finish when told through the pipe. */
static pid_t begin_writing(const char *path, int *tell) {
  int begun[2], go[2];
  char c = 0;
  CHECK(pipe(begun) == 0 && pipe(go) == 0, "pipes");
  pid_t child = fork();
  if (child == 0) {
    mn_file_writer *w;
    close(go[1]);
    char block[100000] = {1};
    bool ok = mn_file_writer_open(path, &w) == MN_OK && mn_file_writer_append(w, block, sizeof block) == MN_OK;
    if (!ok || write(begun[1], "", 1) != 1 || read(go[0], &c, 1) != 1) _exit(1);
    _exit(mn_file_writer_commit(w) == MN_OK ? 0 : 2);
  }
  close(go[0]);
  CHECK(read(begun[0], &c, 1) == 1, "begun");
  close(begun[0]), close(begun[1]);
  *tell = go[1];
  return child;
}

static void what_killed_writers_left_is_tidied(void) {
  const char *dir = in_scratch("tidy");
  char path[600];
  int dead_tell, live_tell, status;
  CHECK_OK(mn_make_dirs(dir));
  snprintf(path, sizeof path, "%s/out", dir);
  named_only = true;
  pid_t dead = begin_writing(path, &dead_tell), live = begin_writing(path, &live_tell);
  named_only = false;
  kill(dead, SIGKILL);
  waitpid(dead, &status, 0);
  CHECK_OK(mn_file_write(in_scratch("tidy/.mneme-notes"), "mine", 4));
  CHECK_OK(mn_file_write(in_scratch("elsewhere"), "mine", 4));
  CHECK(symlink("../elsewhere", in_scratch("tidy/.mneme-1-1.tmp")) == 0, "a link called as ours");
  CHECK(temps_in(dir) == 3, "two files and a link: %d", temps_in(dir));
  mn_output_tidy(dir);
  CHECK(temps_in(dir) == 2 && content_is(in_scratch("tidy/.mneme-notes"), "mine"), "only the dead one's: %d left", temps_in(dir));
  CHECK(content_is(in_scratch("elsewhere"), "mine"), "links are left alone");
  CHECK(write(live_tell, "", 1) == 1 && waitpid(live, &status, 0) == live && status == 0, "the living one ends well: %x", (unsigned)status);
  mn_file_info info;
  CHECK_OK(mn_file_stat(path, &info));
  CHECK(info.size == 100000 && temps_in(dir) == 1, "its file is whole");
  close(dead_tell), close(live_tell);
}

static void outputs_are_tried_and_nothing_stays(void) {
  const char *dir = in_scratch("tried"), *missing = in_scratch("tried/no/such/x");
  char before[600], after[600];
  CHECK_OK(mn_make_dirs(dir));
  snprintf(before, sizeof before, "%s/file", dir);
  CHECK_OK(mn_file_write(before, "content", 7));
  for (int k = 0; k < 2; k++) {
    named_only = k;
    CHECK_OK(mn_output_try(before, 1000));
    snprintf(after, sizeof after, "%s/new", dir);
    CHECK_OK(mn_output_try(after, 0));
    CHECK(content_is(before, "content") && files_in(dir) == 1, "nothing new, nothing changed");
    CHECK(mn_output_try(missing, 0) == MN_ERR_IO && strstr(mn_message(), "No such file"), "%s", mn_message());
    CHECK(mn_output_try(dir, 0) == MN_ERR_IO && strstr(mn_message(), "directory"), "%s", mn_message());
    CHECK(mn_output_try(before, UINT64_MAX) == MN_ERR_IO && strstr(mn_message(), "make room"), "%s", mn_message());
    disk_limited = true, disk_left = 0;
    CHECK(mn_output_try(before, 0) == MN_ERR_IO && strstr(mn_message(), "No space"), "%s", mn_message());
    disk_limited = false;
    CHECK(content_is(before, "content") && files_in(dir) == 1, "nothing new, nothing changed");
    CHECK_OK(mn_output_try_dir(dir));
    CHECK_OK(mn_output_try_dir(in_scratch("tried/a/b/")));
    CHECK(mn_output_try_dir(before) == MN_ERR_IO && mn_output_try_dir(in_scratch("tried/file/b")) == MN_ERR_IO, "%s", mn_message());
  }
  named_only = false;
  int made;
  CHECK_OK(mn_make_dirs_counted(in_scratch("tried/a/b//c/"), &made));
  CHECK(made == 3, "%d", made);
  mn_output_unmake_dirs(in_scratch("tried/a/b//c/"), made);
  CHECK(files_in(dir) == 1, "what was made is gone");
  CHECK_OK(mn_make_dirs(in_scratch("tried/a")));
  CHECK_OK(mn_make_dirs_counted(in_scratch("tried/a/b/c"), &made));
  CHECK_OK(mn_file_write(in_scratch("tried/a/b/kept"), "k", 1));
  mn_output_unmake_dirs(in_scratch("tried/a/b/c"), made);
  CHECK(!mn_file_exists(in_scratch("tried/a/b/c")) && content_is(in_scratch("tried/a/b/kept"), "k"), "what is not empty stays");
}

static void removal_stays_inside(void) {
  char foreign[MN_DIR_NAME];
  CHECK_OK(mn_make_dirs(in_scratch("archive")));
  CHECK_OK(mn_make_dirs(in_scratch("in/ours")));
  CHECK_OK(mn_make_dirs(in_scratch("in/mixed/b")));
  CHECK_OK(mn_file_write(in_scratch("archive/a"), "archived", 8));
  CHECK_OK(mn_file_write(in_scratch("in/mixed/a"), "1", 1));
  CHECK_OK(mn_file_write(in_scratch("in/mixed/notes"), "2", 1));
  CHECK(symlink("../../archive/a", in_scratch("in/ours/a")) == 0 && link(in_scratch("archive/a"), in_scratch("in/ours/b")) == 0 &&
            symlink("../archive", in_scratch("in/link")) == 0 && symlink("in", in_scratch("to-in")) == 0,
        "traps");
  CHECK_OK(mn_dir_remove(in_scratch("in"), "link", is_a_or_b, NULL, foreign));
  CHECK(!mn_file_exists(in_scratch("in/link")) && content_is(in_scratch("archive/a"), "archived"), "a link is unlinked, not entered");
  CHECK(mn_dir_remove(in_scratch("to-in"), "ours", is_a_or_b, NULL, foreign) == MN_ERR_IO, "nor is a parent that is a link");
  CHECK_OK(mn_dir_remove(in_scratch("in"), "ours", is_a_or_b, NULL, foreign));
  CHECK(!*foreign && !mn_file_exists(in_scratch("in/ours")) && content_is(in_scratch("archive/a"), "archived"), "links in it go as links");
  CHECK_OK(mn_dir_foreign(in_scratch("in"), "mixed", is_a_or_b, foreign));
  CHECK(*foreign, "a note, and a directory of one of our names");
  CHECK_OK(mn_dir_remove(in_scratch("in"), "mixed", is_a_or_b, "a", foreign));
  CHECK(*foreign && !mn_file_exists(in_scratch("in/mixed/a")) && content_is(in_scratch("in/mixed/notes"), "2"), "kept by %s", foreign);
  CHECK(mn_file_exists(in_scratch("in/mixed/b")), "directories in it are never removed");
  CHECK(mn_dir_remove(in_scratch("in/mixed"), "notes", is_a_or_b, NULL, foreign) == MN_ERR_IO, "a file is no directory of ours");
  CHECK_OK(mn_dir_remove(in_scratch("in"), "absent", is_a_or_b, NULL, foreign));
  CHECK_OK(mn_dir_remove(in_scratch("no/parent"), "absent", is_a_or_b, NULL, foreign));
}

static void directories_and_names(void) {
  CHECK_OK(mn_make_dirs(in_scratch("a/b//c/")));
  CHECK_OK(mn_make_dirs(in_scratch("a/b/c")));
  CHECK_OK(mn_file_write(in_scratch("a/z"), "1", 1));
  CHECK_OK(mn_file_write(in_scratch("a/B"), "22", 2));
  CHECK(mn_make_dirs(in_scratch("a/z/q")) == MN_ERR_IO && strstr(mn_message(), "Not a directory"), "%s", mn_message());
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(in_scratch("a"), &names, &n));
  CHECK(n == 3 && !strcmp(names[0], "B") && !strcmp(names[1], "b") && !strcmp(names[2], "z"), "sorted names");
  mn_dir_list_free(names, n);
  CHECK(mn_dir_list(in_scratch("absent"), &names, &n) == MN_ERR_IO, "missing");
  mn_file_info info;
  CHECK_OK(mn_file_stat(in_scratch("a/B"), &info));
  CHECK(info.exists && info.is_regular && !info.is_dir && info.size == 2 && info.mtime_ns > 0, "stat");
  CHECK_OK(mn_file_stat(in_scratch("absent"), &info));
  CHECK(!info.exists, "a missing file is no error");
  CHECK_OK(mn_file_remove(in_scratch("a/B")));
  CHECK_OK(mn_file_remove(in_scratch("a/B")));
  CHECK(mn_file_remove(in_scratch("a/b")) == MN_ERR_IO, "a directory is not removed");
  const char *joined[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"a", "/b", "/b"}};
  for (size_t i = 0; i < 4; i++) {
    char *p = mn_path_join(joined[i][0], joined[i][1]);
    CHECK(!strcmp(p, joined[i][2]), "%s", p);
    free(p);
  }
  const char *dirs[][2] = {{"a/b/c", "a/b"}, {"c", "."}, {"/c", "/"}};
  for (size_t i = 0; i < 3; i++) {
    char *p = mn_path_dir(dirs[i][0]);
    CHECK(!strcmp(p, dirs[i][1]) && !strcmp(mn_path_base(dirs[i][0]), "c"), "%s", p);
    free(p);
  }
}

static void hashes_follow_the_content(void) {
  char a[MN_HASH_HEX], b[MN_HASH_HEX];
  mn_content_hash("", 0, a);
  CHECK(!strcmp(a, "99aa06d3014798d86001c324468d497f"), "XXH3-128 of nothing: %s", a); /* the published value */
  size_t n = 700001;                                                                   /* more than one piece */
  unsigned char *data = malloc(n);
  for (size_t i = 0; i < n; i++) data[i] = (unsigned char)(i * i >> 3);
  CHECK_OK(mn_file_write(in_scratch("hash"), data, n));
  CHECK_OK(mn_file_hash(in_scratch("hash"), a));
  mn_content_hash(data, n, b);
  CHECK(!strcmp(a, b) && strlen(a) == 32, "%s %s", a, b);
  data[n / 2] ^= 1;
  mn_content_hash(data, n, b);
  CHECK(strcmp(a, b), "one bit changes it");
  CHECK(mn_file_hash(in_scratch("absent"), a) == MN_ERR_IO, "missing");
  free(data);
}

/* By whatever spelling, there or not yet, and no other. */
static void one_file_has_many_names(void) {
  CHECK(chdir(scratch) == 0, "in the folder");
  CHECK(system("mkdir -p same/in && echo x >same/file && ln -s in same/link && ln -s . same/here") == 0, "made");
  char root[PATH_MAX], slashes[PATH_MAX + 8];
  CHECK(realpath("same", root) != NULL, "the folder");
  static const struct {
    const char *a, *b;
    bool same;
  } pairs[] = {{"file", "./file", true},
               {"file", "in/../file", true},
               {"file", "here/here/file", true},
               {"file", "in/file", false},
               {"new", "./new", true},
               {"new", "here//new", true},
               {"new", "new/", true},
               {"new", "new/.", true},
               {"in/new", "link/new", true},
               {"in/new", "new", false},
               {"none/new", "none//new", true},
               {"none/new", "./none/./new", true},
               {"none/deep/new", "here/none/../none/deep/new", true},
               {"none/new", "none/newer", false},
               {"none/new", "other/new", false},
               {"file/new", "file/./new", true},
               {"link/../new", "new", true},
               {"new", "file", false}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char a[PATH_MAX + 64], b[PATH_MAX + 64];
    for (int how = 0; how < 4; how++) { /* from here, from the root, and with more slashes there than one */
      snprintf(slashes, sizeof slashes, "%s%s", how == 3 ? "//" : "/", root);
      snprintf(a, sizeof a, "%s/%s", how == 1 ? root : "same", pairs[i].a);
      snprintf(b, sizeof b, "%s/%s", how >= 2 ? slashes : "same", pairs[i].b);
      CHECK(mn_file_same(a, b) == pairs[i].same && mn_file_same(b, a) == pairs[i].same, "%s and %s", a, b);
    }
  }
  char *real = mn_path_real("same/link/./../here/none/../new/x//y/");
  snprintf(slashes, sizeof slashes, "%s/new/x/y", root);
  CHECK(real && !strcmp(real, slashes), "%s, not %s", real ? real : "-", slashes);
  free(real);
  real = mn_path_real("//none/../..//x");
  CHECK(real && !strcmp(real, "/x"), "%s", real ? real : "-");
  free(real);
}

int main(void) {
  char name[] = P_tmpdir "/mneme-test-files-XXXXXX";
  scratch = mkdtemp(name);
  if (!scratch) return 1;
  RUN(files_are_read_whole);
  RUN(pipes_are_read_to_the_limit);
  RUN(maps_show_the_bytes);
  RUN(writes_replace_whole);
  RUN(full_disk_leaves_the_old_file);
  RUN(a_killed_writer_leaves_the_old_file);
  RUN(writes_keep_the_mode);
  RUN(links_are_replaced_and_never_written_through);
  RUN(what_cannot_be_replaced_is_refused);
  RUN(pipes_are_read_and_never_waited_for_in_vain);
  RUN(a_copy_is_a_file_of_its_own);
  RUN(removal_stays_inside);
  RUN(what_killed_writers_left_is_tidied);
  RUN(outputs_are_tried_and_nothing_stays);
  RUN(directories_and_names);
  RUN(hashes_follow_the_content);
  RUN(one_file_has_many_names);
  char *clean = mn_format("rm -rf %s", scratch);
  int rc = system(clean);
  free(clean);
  return test_end() || rc != 0;
}
