/* test_installed.c - what `cmake --install` leaves is all that a foreign program needs: it is found by pkg-config and by CMake's find_package, from
 * C and C++, wherever the tree has been moved to; and nothing of this repository is needed. */
#define SH_BEGIN "exec 2>&1 </dev/null; "
#include "program.h"
#include "test.h"

/* A library with a sanitizer in it wants it from who links. */
#define FLAGS (TEST_ADDRESS_SANITIZER ? "-fsanitize=address,undefined" : "")

static bool has(const char *program) { return sh("command -v %s", program) == 0; }

static void the_tree_is_installed_and_moved(void) {
  CHECK(sh("DESTDIR= cmake --install " MN_TEST_BINARY_DIR " --prefix \"$PWD/first\" && mv first 'moved here'") == 0, "%s", out);
  CHECK(sh("cd 'moved here' && ls bin/mneme include/mneme.h include/mneme_chat.h include/mneme_classify.h && bin/mneme --version") == 0,
        "%s", out);
  CHECK(sh("grep -rn '" MN_TEST_SOURCE_DIR "' 'moved here/include' 'moved here'/lib*/pkgconfig 'moved here'/lib*/cmake") == 1,
        "something points into the sources: %s", out);
}

static void pkg_config_finds_it(void) {
  CHECK(sh("cp " MN_TEST_SOURCE_DIR "/examples/*.c . && rm -rf plain && mv 'moved here' plain") == 0, "%s", out);
  for (int i = 0; i < 3; i++) {
    static const char *const names[] = {"train", "stream", "chat"};
    CHECK(sh("export PKG_CONFIG_PATH=$(dirname $PWD/plain/lib*/pkgconfig/mneme.pc $PWD/plain/lib/*/pkgconfig/mneme.pc | tail -1); "
             "${CC:-cc} -std=c17 -Wall -Wextra -Werror -pedantic %s %s.c $(pkg-config --cflags --libs mneme) -o %s && ./%s; [ $? -lt 126 ]",
             FLAGS, names[i], names[i], names[i]) == 0,
          "%s: %s", names[i], out);
  }
}

static void find_package_finds_it(void) {
  static const char project[] = "cmake_minimum_required(VERSION 3.18)\nproject(foreign LANGUAGES C CXX)\nfind_package(mneme 0.1 REQUIRED)\n"
                                "add_executable(in-c stream.c)\ntarget_link_libraries(in-c PRIVATE mneme::mneme)\n"
                                "add_executable(in-cxx api.cpp)\ntarget_link_libraries(in-cxx PRIVATE mneme::mneme)\n";
  if (!has("c++")) return;
  FILE *f = fopen("CMakeLists.txt", "w");
  if (f) fputs(project, f), fclose(f);
  CHECK(sh("cp " MN_TEST_SOURCE_DIR "/tests/api.cpp . && cmake -S . -B foreign -DCMAKE_PREFIX_PATH=$PWD/plain -DCMAKE_C_FLAGS='%s' "
           "-DCMAKE_CXX_FLAGS='%s' && cmake --build foreign && ! foreign/in-cxx nothing && foreign/in-cxx nothing",
           FLAGS, FLAGS) == 1,
        "%s", out);
  CHECK(strstr(out, "nothing does not exist"), "%s", out);
}

int main(void) {
  if (!has("cmake") || !has("pkg-config") || !has("cc")) {
    printf("skipped: no cmake, pkg-config or compiler\n");
    return 0;
  }
  RUN(the_tree_is_installed_and_moved);
  RUN(pkg_config_finds_it);
  RUN(find_package_finds_it);
  return test_end();
}
