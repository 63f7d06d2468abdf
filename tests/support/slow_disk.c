/* A disk that takes its time, for programs that load this before the C library (LD_PRELOAD).

   Looking at, opening, renaming and removing what has SLOW_NAME in its path takes SLOW_MICROSECONDS longer than it does,
   and as long as the file SLOW_GATE exists it does not come back at all. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void take_time(int directory, const char *path) {
    const char *name = getenv("SLOW_NAME"), *gate = getenv("SLOW_GATE"), *delay = getenv("SLOW_MICROSECONDS");
    char link[64], full[PATH_MAX + 1] = "";
    if (name == NULL) return;
    if (path == NULL || strstr(path, name) == NULL) {
        if (directory < 0) return;
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, full, PATH_MAX);
        full[length > 0 ? length : 0] = 0;
        if (strstr(full, name) == NULL) return;
    }
    if (delay != NULL) usleep(atoi(delay));
    while (gate != NULL && syscall(SYS_access, gate, F_OK) == 0) usleep(10000);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int fstatat(int directory, const char *path, struct stat *found, int flags) {
    REAL(fstatat);
    take_time(directory, path);
    return real(directory, path, found, flags);
}

int fstatat64(int directory, const char *path, struct stat64 *found, int flags) {
    REAL(fstatat64);
    take_time(directory, path);
    return real(directory, path, found, flags);
}

int lstat64(const char *path, struct stat64 *found) {
    REAL(lstat64);
    take_time(-1, path);
    return real(path, found);
}

int stat64(const char *path, struct stat64 *found) {
    REAL(stat64);
    take_time(-1, path);
    return real(path, found);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    take_time(-1, path);
    return real(path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    REAL(openat64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    take_time(directory, path);
    return real(directory, path, flags, mode);
}

int unlinkat(int directory, const char *path, int flags) {
    REAL(unlinkat);
    take_time(directory, path);
    return real(directory, path, flags);
}

int renameat(int old_directory, const char *old, int new_directory, const char *new) {
    REAL(renameat);
    take_time(old_directory, old);
    return real(old_directory, old, new_directory, new);
}

int rename(const char *old, const char *new) {
    REAL(rename);
    take_time(-1, old);
    return real(old, new);
}

int rmdir(const char *path) {
    REAL(rmdir);
    take_time(-1, path);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    take_time(-1, path);
    return real(path, mode);
}
