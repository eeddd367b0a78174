/* A file system that behaves oddly: preloaded, it changes what calls below one folder do.
 *
 * FS_SHIM holds `;`-separated words, AT=FOLDER first; `tests/filesystems/shims.py` has the list.
 * Processes that a preloaded program starts are preloaded too, whatever environment they get.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) static __typeof__(name) *real; \
    if (!real) { real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); }

static char at[4096], words[8192], preload[4200], shim[8300];
static size_t at_len;

/* The value of a word NAME=value; NULL without such a word, "" without a value. */
static const char *word(const char *name) {
    size_t size = strlen(name);
    for (const char *here = words; *here; here += strlen(here) + 1)
        if (!strncmp(here, name, size) && (here[size] == '=' || !here[size]))
            return here[size] ? here + size + 1 : here + size;
    return NULL;
}

static int number(const char *name) {
    const char *value = word(name);
    return value ? atoi(value) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *given = getenv("FS_SHIM"), *own = getenv("LD_PRELOAD");
    if (!given || !own) return;
    snprintf(shim, sizeof shim, "FS_SHIM=%s", given);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", own);
    snprintf(words, sizeof words - 1, "%s", given);
    for (char *c = words; *c; c++) if (*c == ';') *c = 0;
    const char *folder = word("AT");
    if (folder) at_len = strlen(strncpy(at, folder, sizeof at - 1));
}

/* The absolute path of a name in a folder; 0 if it is not below AT. */
static int whole(int dir, const char *path, char *out, size_t size) {
    if (!at_len) return 0;
    size_t used = 0;
    if (path && *path == '/') {
        snprintf(out, size, "%s", path);
    } else {
        char link[64];
        if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        static ssize_t (*real_readlink)(const char *, char *, size_t);
        if (!real_readlink) real_readlink = dlsym(RTLD_NEXT, "readlink");
        ssize_t got = real_readlink(link, out, size - 1);
        if (got < 0) return 0; /* Too deep to be told: as it would be without a shim. */
        used = (size_t)got;
        out[used] = 0;
        if (path && *path && strcmp(path, "."))
            snprintf(out + used, size - used, "/%s", path);
    }
    return !strncmp(out, at, at_len) && (out[at_len] == '/' || !out[at_len]);
}

static int inside(int dir, const char *path) {
    char found[8192];
    int before = errno, is = whole(dir, path, found, sizeof found);
    errno = before;
    return is;
}

/* SQUASH=user: what root does there is done as that user, as NFS servers have it. */
static int enter(int dir, const char *path) {
    if (!word("SQUASH") || !inside(dir, path)) return 0;
    setfsgid((gid_t)number("SQUASH"));
    setfsuid((uid_t)number("SQUASH"));
    return 1;
}
static void leave(int *entered) {
    if (!*entered) return;
    int before = errno;
    setfsuid(geteuid());
    setfsgid(getegid());
    errno = before;
}
#define SQUASHED(dir, path) \
    int squashed __attribute__((cleanup(leave), unused)) = enter(dir, path)

static const char *last(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Whether a name is one that cannot be: NAMES=errno:CHARACTERS, or a dot or blank at its end. */
static int refused(int dir, const char *path) {
    const char *rule = word("NAMES");
    if (!rule || !inside(dir, path)) return 0;
    const char *name = last(path), *colon = strchr(rule, ':');
    size_t size = strlen(name);
    if (!size || !strcmp(name, ".") || !strcmp(name, "..")) return 0;
    if ((colon && strpbrk(name, colon + 1)) || name[size - 1] == '.' || name[size - 1] == ' ')
        return errno = atoi(rule), 1;
    return 0;
}

/* FOLD: the path with its last name as it lies in the folder, if one differs by case only. */
static const char *folded(int dir, const char *path, char *room, size_t size) {
    if (!word("FOLD") || !path || !*path || !inside(dir, path)) return path;
    static int (*real_stat)(int, const char *, struct stat *, int);
    if (!real_stat) real_stat = dlsym(RTLD_NEXT, "fstatat64");
    static int (*real_open)(int, const char *, int, ...);
    if (!real_open) real_open = dlsym(RTLD_NEXT, "openat64");
    int before = errno;
    struct stat found;
    if (!real_stat(dir, path, &found, AT_SYMLINK_NOFOLLOW)) return errno = before, path;
    char above[4096] = ".";
    int length = (int)(last(path) - path);
    if (length) snprintf(above, sizeof above, "%.*s", length, path);
    int folder = real_open(dir, above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = folder < 0 ? NULL : fdopendir(folder);
    struct dirent *item;
    while (listing && (item = readdir(listing)))
        if (!strcasecmp(item->d_name, last(path))) {
            snprintf(room, size, "%.*s%s", length, path, item->d_name);
            path = room;
            break;
        }
    if (listing) closedir(listing);
    errno = before;
    return path;
}
#define FOLDED(dir, path) char folded_##path[4352]; \
    path = folded(dir, path, folded_##path, sizeof folded_##path)

/* ESTALE=FILE: the first call that asks gets this error; the file remembers that. */
static int stale(int dir, const char *path) {
    const char *mark = word("ESTALE");
    if (!mark || !inside(dir, path) || !path || !strcmp(path, ".")) return 0;
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    int before = errno, fd = real(mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) return errno = before, 0;
    close(fd);
    return errno = ESTALE, 1;
}

int openat64(int dir, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    static int (*real)(int, const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "openat64");
    if (refused(dir, path)) return -1;
    if (!(flags & (O_DIRECTORY | O_PATH)) && stale(dir, path)) return -1;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    return real(dir, path, flags, mode);
}

int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(mkdirat);
    if (refused(dir, path)) return -1;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    return real(dir, path, mode);
}

int symlinkat(const char *text, int dir, const char *path) {
    REAL(symlinkat);
    if (refused(dir, path)) return -1;
    if (word("NO_SYMLINKS") && inside(dir, path)) return errno = number("NO_SYMLINKS"), -1;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    return real(text, dir, path);
}

/* EXDEV=FOLDER: what lies outside of it cannot be renamed or linked into it. */
static int across(int from, const char *old, int to, const char *new) {
    const char *wall = word("EXDEV");
    char one[8192], other[8192];
    if (!wall || !whole(from, old, one, sizeof one) || !whole(to, new, other, sizeof other))
        return 0;
    size_t size = strlen(wall);
    int first = !strncmp(one, wall, size) && one[size] == '/';
    int second = !strncmp(other, wall, size) && other[size] == '/';
    return first != second ? (errno = EXDEV, 1) : 0;
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(linkat);
    if (word("NO_LINKS") && inside(to, new)) return errno = number("NO_LINKS"), -1;
    if (refused(to, new) || across(from, old, to, new)) return -1;
    FOLDED(from, old);
    FOLDED(to, new);
    SQUASHED(to, new);
    return real(from, old, to, new, flags);
}

int renameat(int from, const char *old, int to, const char *new) {
    REAL(renameat);
    if (refused(to, new) || across(from, old, to, new)) return -1;
    FOLDED(from, old);
    FOLDED(to, new);
    SQUASHED(to, new);
    return real(from, old, to, new);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    REAL(renameat2);
    if (word("NO_RENAME2") && inside(to, new)) return errno = EINVAL, -1;
    if (refused(to, new) || across(from, old, to, new)) return -1;
    FOLDED(from, old);
    FOLDED(to, new);
    SQUASHED(to, new);
    return real(from, old, to, new, flags);
}

/* SILLY: a file that a program has open stays under a hidden name until none has it open. */
static int is_open(int dir, const char *path) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "openat64");
    int fd = real(dir, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return 0;
    struct stat found;
    int busy = !fstat(fd, &found) && S_ISREG(found.st_mode) && fcntl(fd, F_SETLEASE, F_WRLCK) < 0
        && errno == EAGAIN;
    close(fd);
    return busy;
}

/* Remove the hidden names in a folder that no program has open any more. */
static void sweep(int dir) {
    static int (*real_unlink)(int, const char *, int);
    if (!real_unlink) real_unlink = dlsym(RTLD_NEXT, "unlinkat");
    static int (*real_open)(int, const char *, int, ...);
    if (!real_open) real_open = dlsym(RTLD_NEXT, "openat64");
    int before = errno, again = real_open(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = again < 0 ? NULL : fdopendir(again);
    struct dirent *item;
    while (listing && (item = readdir(listing)))
        if (!strncmp(item->d_name, ".nfs", 4) && !is_open(dir, item->d_name))
            real_unlink(dir, item->d_name, 0);
    if (listing) closedir(listing);
    errno = before;
}

static int unlink_in(int dir, const char *path, int flags) {
    static int (*real)(int, const char *, int);
    if (!real) real = dlsym(RTLD_NEXT, "unlinkat");
    FOLDED(dir, path);
    SQUASHED(dir, path);
    if (!word("SILLY") || !inside(dir, path)) return real(dir, path, flags);
    if (flags & AT_REMOVEDIR) {
        static int (*real_open)(int, const char *, int, ...);
        if (!real_open) real_open = dlsym(RTLD_NEXT, "openat64");
        int below = real_open(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0) {
            sweep(below);
            close(below);
        }
        return real(dir, path, flags);
    }
    int before = errno;
    if (strncmp(last(path), ".nfs", 4) ? !is_open(dir, path) : !is_open(dir, path))
        return errno = before, real(dir, path, flags);
    if (!strncmp(last(path), ".nfs", 4)) return errno = EBUSY, -1;
    static int (*real_rename)(int, const char *, int, const char *);
    if (!real_rename) real_rename = dlsym(RTLD_NEXT, "renameat");
    char hidden[64];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(hidden, sizeof hidden, ".nfs%08lx%08lx", (long)getpid(), (long)now.tv_nsec);
    return real_rename(dir, path, dir, hidden);
}

int unlinkat(int dir, const char *path, int flags) { return unlink_in(dir, path, flags); }
int unlink(const char *path) { return unlink_in(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlink_in(AT_FDCWD, path, AT_REMOVEDIR); }

DIR *fdopendir(int fd) {
    REAL(fdopendir);
    static __thread int within;
    if (word("SILLY") && !within && inside(fd, NULL)) {
        within = 1;
        sweep(fd);
        within = 0;
    }
    return real(fd);
}

static void fix(struct stat *found) {
    const char *mode = word("MODE"), *grain = word("GRAIN");
    if (mode) {
        mode_t bits = (mode_t)strtol(mode, NULL, 8);
        found->st_mode = (found->st_mode & S_IFMT) | bits;
    }
    if (grain) {
        long seconds = atol(grain);
        struct timespec *times[] = {&found->st_mtim, &found->st_ctim};
        for (int i = 0; i < 2; i++) {
            times[i]->tv_sec -= times[i]->tv_sec % (seconds ? seconds : 1);
            times[i]->tv_nsec = 0;
        }
    }
    if (word("INODES"))
        found->st_ino = found->st_ino % 1000000 + (ino_t)(time(NULL) / 2 % 1000000) * 1000000;
}

int fstatat64(int dir, const char *path, struct stat64 *found, int flags) {
    static int (*real)(int, const char *, struct stat64 *, int);
    if (!real) real = dlsym(RTLD_NEXT, "fstatat64");
    if (refused(dir, path)) return -1;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    char full[8192];
    int done = real(dir, path, found, flags), before = errno;
    if (!done && whole(dir, path, full, sizeof full)) fix((struct stat *)found);
    errno = before;
    return done;
}
int fstat64(int fd, struct stat64 *found) {
    static int (*real)(int, struct stat64 *);
    if (!real) real = dlsym(RTLD_NEXT, "fstat64");
    char full[8192];
    int done = real(fd, found), before = errno;
    if (!done && whole(fd, NULL, full, sizeof full)) fix((struct stat *)found);
    errno = before;
    return done;
}
int stat64(const char *path, struct stat64 *found) { return fstatat64(AT_FDCWD, path, found, 0); }
int lstat64(const char *path, struct stat64 *found) {
    return fstatat64(AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW);
}

static int no_times(int dir, const char *path) {
    return word("NO_TIMES") && inside(dir, path) ? (errno = number("NO_TIMES"), 1) : 0;
}
static int ignores_times(int dir, const char *path) {
    return word("IGNORE_TIMES") && inside(dir, path);
}
int futimens(int fd, const struct timespec times[2]) {
    REAL(futimens);
    if (no_times(fd, NULL)) return -1;
    SQUASHED(fd, NULL);
    return ignores_times(fd, NULL) ? 0 : real(fd, times);
}
int utimensat(int dir, const char *path, const struct timespec times[2], int flags) {
    REAL(utimensat);
    if (no_times(dir, path)) return -1;
    if (ignores_times(dir, path)) return 0;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    return real(dir, path, times, flags);
}

int fchmod(int fd, mode_t mode) {
    REAL(fchmod);
    SQUASHED(fd, NULL);
    return word("MODE") && inside(fd, NULL) ? 0 : real(fd, mode);
}
int fchmodat(int dir, const char *path, mode_t mode, int flags) {
    REAL(fchmodat);
    if (word("MODE") && inside(dir, path)) return 0;
    FOLDED(dir, path);
    SQUASHED(dir, path);
    return real(dir, path, mode, flags);
}
int chmod(const char *path, mode_t mode) { return fchmodat(AT_FDCWD, path, mode, 0); }
int fchown(int fd, uid_t user, gid_t group) {
    REAL(fchown);
    if ((word("MODE") || word("SQUASH")) && inside(fd, NULL)) return errno = EPERM, -1;
    return real(fd, user, group);
}

int flock(int fd, int how) {
    REAL(flock);
    if (word("NO_LOCKS") && inside(fd, NULL)) return errno = number("NO_LOCKS"), -1;
    return real(fd, how);
}

#define SYNC(name) int name(int fd) { \
    REAL(name); \
    if (word("NO_SYNC") && inside(fd, NULL)) return errno = number("NO_SYNC"), -1; \
    return real(fd); }
SYNC(fsync)
SYNC(fdatasync)
SYNC(syncfs)

off64_t lseek64(int fd, off64_t to, int how) {
    static off64_t (*real)(int, off64_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "lseek64");
    if (word("NO_HOLES") && (how == SEEK_DATA || how == SEEK_HOLE) && inside(fd, NULL))
        return errno = EINVAL, -1;
    return real(fd, to, how);
}
int ftruncate64(int fd, off64_t size) {
    static int (*real)(int, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "ftruncate64");
    struct stat found;
    if (word("NO_HOLES") && inside(fd, NULL) && !fstat(fd, &found) && found.st_size < size)
        return errno = EPERM, -1;
    return real(fd, size);
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
    REAL(fallocate);
    if (word("NO_HOLES") && inside(fd, NULL)) return errno = EOPNOTSUPP, -1;
    return real(fd, mode, offset, size);
}

static int without_space(struct statvfs64 *found) {
    found->f_blocks = found->f_bfree = found->f_bavail = 0;
    found->f_files = found->f_ffree = found->f_favail = 0;
    return 0;
}
int statvfs64(const char *path, struct statvfs64 *found) {
    static int (*real)(const char *, struct statvfs64 *);
    if (!real) real = dlsym(RTLD_NEXT, "statvfs64");
    int done = real(path, found);
    return !done && word("NO_SPACE") && inside(AT_FDCWD, path) ? without_space(found) : done;
}
int fstatvfs64(int fd, struct statvfs64 *found) {
    static int (*real)(int, struct statvfs64 *);
    if (!real) real = dlsym(RTLD_NEXT, "fstatvfs64");
    int done = real(fd, found);
    return !done && word("NO_SPACE") && inside(fd, NULL) ? without_space(found) : done;
}

int execve(const char *path, char *const argv[], char *const given[]) {
    REAL(execve);
    if (!at_len) return real(path, argv, given);
    size_t count = 0;
    while (given && given[count]) count++;
    char *with[count + 3];
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(given[i], "LD_PRELOAD=", 11) && strncmp(given[i], "FS_SHIM=", 8))
            with[kept++] = given[i];
    with[kept++] = preload;
    with[kept++] = shim;
    with[kept] = NULL;
    return real(path, argv, with);
}
