/* Owns what lies between habittod and the disk in the tests: a library for LD_PRELOAD that writes down what is done to
 * the database's files and what is sent to sockets (DISK_RECORD), and, as a shared page says (DISK_CONTROL), makes calls fail, wait
 * or end it all, and the clock jump. Only files below DISK_FOLDER are touched; SQLite's -shm, which no power loss keeps, is left out.
 * Never part of the program. Enter at record(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, SENT };
enum mode { NOTHING, FAIL_ONE, FAIL_FROM, HOLD_SYNCS, KILL_AT, FAIL_SYNCS };

/* The page that a test and its server share. */
struct control {
  volatile uint32_t mode, error;
  volatile uint64_t at;      /* which call, counted from 1 */
  volatile uint64_t calls;   /* writes, truncations and syncs so far */
  volatile uint64_t held;    /* syncs that wait */
  volatile uint64_t refused; /* accepts that the kernel refused for lack of descriptors */
  volatile int64_t ahead;    /* seconds that the clock on the wall is ahead */
};

#define FDS 4096
static char *names[FDS];
static const char *folder;
static int out = -1;
static struct control *control;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
  folder = getenv("DISK_FOLDER");
  const char *path = getenv("DISK_RECORD");
  if (path) out = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC);
  path = getenv("DISK_CONTROL");
  int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
  if (fd >= 0) {
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) control = page;
    syscall(SYS_close, fd);
  }
}

/* One record: kind, lengths of name and data, offset; then both. One write each, so that none is torn. */
static void record(enum kind kind, const char *name, uint64_t offset, const void *data, size_t len) {
  if (out < 0) return;
  struct { uint32_t kind, name; uint64_t len, offset; } head = { kind, strlen(name), len, offset };
  struct iovec parts[] = { { &head, sizeof head }, { (void *)name, head.name }, { (void *)data, len } };
  pthread_mutex_lock(&lock);
  syscall(SYS_writev, out, parts, 3);
  pthread_mutex_unlock(&lock);
}

static int ours(const char *name) {
  size_t len = strlen(name);
  return folder && strncmp(name, folder, strlen(folder)) == 0 && !(len > 4 && strcmp(name + len - 4, "-shm") == 0);
}

static const char *named(int fd) { return fd >= 0 && fd < FDS ? names[fd] : NULL; }

static void absolute(const char *path, char whole[PATH_MAX]) {
  whole[0] = 0;
  if (path[0] != '/' && getcwd(whole, PATH_MAX - 1)) strncat(whole, "/", PATH_MAX - strlen(whole) - 1);
  strncat(whole, path, PATH_MAX - strlen(whole) - 1);
}

int clock_gettime(clockid_t id, struct timespec *time) {
  int done = syscall(SYS_clock_gettime, id, time);
  if (control && id == CLOCK_REALTIME) time->tv_sec += control->ahead;
  return done;
}

/* Whether this call is to fail; sets errno. */
static int fails(void) {
  if (!control) return 0;
  uint64_t call = __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
  uint32_t mode = control->mode;
  if (mode == KILL_AT && call == control->at) kill(getpid(), SIGKILL);
  if ((mode == FAIL_ONE && call == control->at) || (mode == FAIL_FROM && call >= control->at)) {
    errno = control->error;
    return 1;
  }
  return 0;
}

static int opened(int fd, const char *path, int flags, int existed) {
  char whole[PATH_MAX];
  absolute(path, whole);
  if (fd < 0 || fd >= FDS) return fd;
  free(names[fd]);
  names[fd] = ours(whole) ? strdup(whole) : NULL;
  if (names[fd] && (flags & O_CREAT) && !existed) record(CREATE, names[fd], 0, NULL, 0);
  if (names[fd] && (flags & O_TRUNC) && existed) record(TRUNCATE, names[fd], 0, NULL, 0);
  return fd;
}

#define OPEN(name, before, ...)                                   \
  va_list more;                                                   \
  va_start(more, flags);                                          \
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
  va_end(more);                                                   \
  int existed = access(path, F_OK) == 0;                          \
  return opened(REAL(name)(__VA_ARGS__, mode), path, flags, existed);

int open(const char *path, int flags, ...) { OPEN(open, , path, flags) }
int open64(const char *path, int flags, ...) { OPEN(open64, , path, flags) }
int openat(int at, const char *path, int flags, ...) { OPEN(openat, , at, path, flags) }
int openat64(int at, const char *path, int flags, ...) { OPEN(openat64, , at, path, flags) }

int close(int fd) {
  if (named(fd)) {
    free(names[fd]);
    names[fd] = NULL;
  }
  return REAL(close)(fd);
}

static ssize_t wrote(int fd, const void *data, size_t len, off64_t offset, int at) {
  const char *name = named(fd);
  if (name) {
    if (fails()) return -1;
    uint64_t place = at ? (uint64_t)offset : (uint64_t)lseek64(fd, 0, SEEK_CUR);
    record(WRITE, name, place, data, len);
  }
  return at ? syscall(SYS_pwrite64, fd, data, len, offset) : syscall(SYS_write, fd, data, len);
}

ssize_t write(int fd, const void *data, size_t len) { return wrote(fd, data, len, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) { return wrote(fd, data, len, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) { return wrote(fd, data, len, offset, 1); }

/* What goes to sockets: an answer, or a frame, is a promise. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  ssize_t sent = REAL(writev)(fd, parts, count);
  ssize_t left = sent;
  if (out >= 0 && !named(fd))
    for (int i = 0; i < count && left > 0; i++) {
      size_t len = parts[i].iov_len < (size_t)left ? parts[i].iov_len : (size_t)left;
      record(SENT, "", 0, parts[i].iov_base, len);
      left -= len;
    }
  return sent;
}

ssize_t send(int fd, const void *data, size_t len, int flags) {
  ssize_t sent = REAL(send)(fd, data, len, flags);
  if (sent > 0) record(SENT, "", 0, data, sent);
  return sent;
}

static int cut(int fd, off64_t len) {
  if (named(fd)) {
    if (fails()) return -1;
    record(TRUNCATE, named(fd), len, NULL, 0);
  }
  return syscall(SYS_ftruncate, fd, len);
}

int ftruncate(int fd, off_t len) { return cut(fd, len); }
int ftruncate64(int fd, off64_t len) { return cut(fd, len); }

/* Written down once it is done: what was written before is safe from here on. */
static int synced(int fd, int call) {
  if (named(fd)) {
    if (fails()) return -1;
    if (control && control->mode == FAIL_SYNCS) {
      errno = control->error;
      return -1;
    }
    if (control && control->mode == HOLD_SYNCS) {
      __atomic_add_fetch(&control->held, 1, __ATOMIC_SEQ_CST);
      while (control->mode == HOLD_SYNCS) usleep(1000);
    }
  }
  int done = syscall(call, fd);
  if (done == 0 && named(fd)) record(SYNC, named(fd), 0, NULL, 0);
  return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
  char old[PATH_MAX], new[PATH_MAX];
  absolute(from, old);
  absolute(to, new);
  int done = REAL(rename)(from, to);
  if (done == 0 && ours(new)) record(RENAME, old, 0, new, strlen(new));
  return done;
}

int unlink(const char *path) {
  char whole[PATH_MAX];
  absolute(path, whole);
  int done = REAL(unlink)(path);
  if (done == 0 && ours(whole)) record(UNLINK, whole, 0, NULL, 0);
  return done;
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
  int got = syscall(SYS_accept4, fd, address, len, flags);
  if (got < 0 && control && (errno == EMFILE || errno == ENFILE))
    __atomic_add_fetch(&control->refused, 1, __ATOMIC_SEQ_CST);
  return got;
}
