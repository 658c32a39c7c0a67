//! Every number that bounds something: its unit (the last word of its name), its value and why
//! it is what it is. Flags may change those that a person has reason to change; `cli` says which.

use std::num::NonZeroUsize;
use std::time::Duration;

/// The longest name, in bytes. The protocol's own limit: the servers of old read a name with one
/// `recv(1024)`. The LF that ends a name, and one CR before it, do not count.
pub const NAME_BYTES_MAX: usize = 1024;

/// The longest text that `thank` takes from one client, in bytes. What follows is discarded.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// How often one connection may ask whether the bytes in hand already name a file. A client that
/// sends one byte a segment must not buy a thousand `open` calls.
pub const SPECULATIVE_LOOKUPS_MAX: u8 = 16;

/// The loop's one scratch buffer, in bytes: what one read takes at most, and what a copied body
/// is sent through. 64 KiB is the largest segment that loopback carries.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// What one read of a request takes, in bytes. What follows a request is kept while its answer
/// waits, so this is also what a connection holds of requests to come; the rest stays with the
/// kernel. Most requests are shorter, and take one read.
pub const REQUEST_READ_BYTES_MAX: usize = 4 * 1024;

/// A connection's share of the memory for requests that have come in part, in bytes: longer than
/// most heads. All connections together hold no more than one share for each that there may be.
pub const REQUEST_MEMORY_SHARE_BYTES: usize = 2 * 1024;

/// What all of them may hold however few connections there may be, in bytes: some longest heads.
pub const REQUEST_MEMORY_BYTES_MIN: usize = 1024 * 1024;

/// What is kept of a request on the heap, in bytes. More takes pages of its own: a heap gives nothing
/// back while anything lives above it.
pub const INPUT_ON_HEAP_BYTES_MAX: usize = 512;

/// These pages come by so many bytes at once.
pub const INPUT_PAGE_BYTES: usize = 4096;

/// Memory that must be free when more is kept of what a peer sends, in bytes: allocations of other kinds
/// are small, and can't be refused. Less than what the allocator asks the kernel for by itself (128 KiB).
pub const MEMORY_MARGIN_BYTES: usize = 64 * 1024;

/// Bytes in memory from this length on are sent from where they are, in one call with the head before
/// them; to copy fewer behind their head costs less than the kernel's look at a list of pieces.
pub const GATHERED_BYTES_MIN: usize = 4 * 1024;

/// A body up to this many bytes is read and sent through the scratch buffer; a longer one goes by
/// sendfile, which saves the copy but costs a call more: as much as to copy 16 KiB, less while memory has
/// other things to do.
pub const COPIED_BODY_BYTES_MAX: u64 = 12 * 1024;

/// The same for a part of a body, in bytes: several parts are copied behind one another for one call.
pub const COPIED_PART_BYTES_MAX: u64 = 32 * 1024;

/// The most that sendfile moves without looking for a signal, in bytes: the 16 pages of the pipe
/// inside it. A process killed between two of them has sent a part.
pub const SENDFILE_CHUNK_BYTES: u64 = 64 * 1024;

/// The part of the largest send buffer that a body takes at most that is sent without a guard: one in so
/// many. The kernel counts what it adds to the bytes, and begins with a smaller buffer.
pub const SEND_BUFFER_SHARE: u64 = 4;

/// What one sendfile moves for a peer that takes all it is given, in bytes: whole pages that fit
/// one segment as Linux hands it to a device (64 KiB with its headers). Left to itself sendfile
/// goes on by 64 KiB, which is a segment and a bit; the peer wakes for each, and 1 GiB costs twice
/// the CPU. With many peers, or slow ones, the difference vanishes, and longer calls are cheaper.
pub const SENDFILE_SEGMENT_BYTES: usize = 60 * 1024;

/// What one connection may send or discard in one step, in bytes, before the others have theirs.
/// With a quarter of it a MiB costs a tenth more CPU (64 clients), and no percentile of a small
/// client beside bulk readers gets better: [`LOOP_TURN_BYTES_MAX`] decides that.
pub const STEP_BYTES_MAX: u64 = 1024 * 1024;

/// What all connections together may move in one turn, in bytes, before the loop polls again: some
/// 100 us of work over loopback. A small request waits about as long for the bulk senders before
/// it.
pub const LOOP_TURN_BYTES_MAX: u64 = 1024 * 1024;

/// A connection that moves so many bytes in one step counts as a bulk sender: more than an answer
/// that is sent at once.
pub const LARGE_STEP_BYTES: u64 = 64 * 1024;

/// Sockets that a service manager may pass.
pub const PASSED_SOCKETS_MAX: u32 = 1024;

/// Clients that one listener may accept in one turn.
pub const ACCEPTS_PER_TURN_MAX: usize = 128;

/// Readiness events that one wait may report. The rest stays with the kernel until the next turn.
pub const EVENTS_PER_TURN_MAX: usize = 1024;

/// How long a listener that ran out of descriptors waits before it accepts again, unless a
/// connection ends first. nginx waits as long (`accept_mutex_delay`).
pub const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// How often a warning about a shortage may come.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// How long the first connection in the queue for descriptors waits before it tries again, unless a
/// connection ends first.
pub const FD_WAIT_RETRY: Duration = Duration::from_millis(500);

/// How long the listeners stay open after the first signal, for clients whose handshake is under
/// way: the last ACK may still be in flight. 200 ms is TCP's shortest retransmission time on Linux.
pub const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);

/// How long the kernel keeps a client that says nothing before it lets it be accepted, in seconds
/// (TCP_DEFER_ACCEPT). Whoever speaks at once is accepted with its request at hand.
pub const DEFER_ACCEPT_SECONDS: i32 = 1;

/// What a lingering connection discards at most, in bytes.
pub const LINGER_BYTES_MAX: u64 = 1024 * 1024;

/// Replies that a connection may be given in one step: pipelined requests, before the others have
/// their turn.
pub const REPLIES_PER_STEP_MAX: u32 = 16;

/// The share of the connections that is made free when all are taken and a client waits for a place: until
/// it is, none is kept alive. One in so many.
pub const CONNECTIONS_KEPT_FREE_SHARE: usize = 10;

/// How long connections make room after a client has waited for a place: who comes next needs one, too.
pub const CROWDED_TIME: Duration = Duration::from_secs(1);

/// Connections that are asked to make way for one newcomer in one turn. One is enough, unless a
/// request has just come on it.
pub const RECLAIMS_PER_CLIENT_MAX: usize = 16;

/// The size up to which what grows with the number of connections is left as it is, in
/// connections: a slab of 40 KiB.
pub const SLAB_SLOTS_KEPT: usize = 1024;

/// How long after most connections have ended their memory is given back. Clients that come back at
/// once find it.
pub const SHRINK_DELAY: Duration = Duration::from_secs(1);

/// How long a connection that was kept alive may say nothing. nginx and Varnish keep idle ones for 60 s: they
/// close first, and know that no request of theirs is under way.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a lingering connection waits for the next byte.
pub const LINGER_IDLE: Duration = Duration::from_secs(2);

/// How long a connection lingers in all while the peer acknowledges nothing.
pub const LINGER_TOTAL: Duration = Duration::from_secs(10);

/// How often `openat2` is asked again when the tree changed under it (EAGAIN).
pub const OPEN_ATTEMPTS_MAX: u32 = 8;

/// How long the cache believes at least what it knows of a file without a look at it: as long as writes
/// that make no event, and mounts, may stay unseen.
pub const CACHE_FRESH: Duration = Duration::from_secs(1);

/// The part of the time that a file had lain unchanged for which its state is believed: one in so many. HTTP
/// has the same rule where nothing else is said (RFC 9111, section 4.2.2).
pub const CACHE_FRESH_SHARE: u32 = 10;

/// How long a file's state is believed at most, unless very many files are kept.
pub const CACHE_FRESH_MAX: Duration = Duration::from_secs(10);

/// If more files are kept than can be looked at in that time, so many a second, each is believed for longer.
/// 100,000 files that are asked for in turn are each asked for every second or two, and a look takes 5 us.
pub const CACHE_LOOKS_A_SECOND: u32 = 2_000;

/// What is asked for again within this is worth keeping. Where it can't be asked whether a read would
/// wait, pages that were read so long ago are taken for still in memory.
pub const CACHE_REUSE_WINDOW: Duration = Duration::from_secs(10);

/// How long nothing is asked for before the cache closes what it keeps open.
pub const CACHE_IDLE: Duration = Duration::from_secs(5);

/// Files that the cache keeps, and names that it remembers without their files.
pub const CACHE_NAMES_MAX: usize = 128 * 1024;

/// What a file that is kept takes beside its contents and its name, in bytes: its state, the header
/// fields of answers with it, its place in the tables. Measured.
pub const CACHE_FILE_BYTES: usize = 800;

/// What a watch takes beside its path, in bytes: mostly the kernel's, which keeps the inode in memory
/// as long as it is watched.
pub const CACHE_WATCH_BYTES: usize = 1024;

/// What a name that was asked for once takes beside its letters, in bytes.
pub const CACHE_GHOST_BYTES: usize = 160;

/// One name in so many takes the place of another that was asked for once, where there is no room for
/// both: a name that is asked for all the time is soon remembered, and most stay until they are met again.
pub const CACHE_GHOST_TURNOVER: u128 = 8;

/// The part of the cache's memory that names without their files may take, and another that
/// directories may without watched files: one in so many.
pub const CACHE_SPARE_SHARE: usize = 8;

/// Folders whose lists are kept.
pub const CACHE_FOLDERS_MAX: usize = 64;

/// A list that took long to make is kept for so many times as long: however often it is asked for, that is
/// a tenth of a core.
pub const CACHE_LIST_TIMES: u32 = 10;

/// The part of the cache's memory that one list may take: one in so many.
pub const CACHE_LIST_SHARE: usize = 2;

/// Directories that stay watched though nothing beneath them is. The first watch of a directory
/// makes the kernel visit each name in it that it remembers: 60 ms for a million.
pub const CACHE_IDLE_DIRECTORIES_MAX: usize = 256;

/// Names that are forgotten one by one when something has changed, a few microseconds each: those of a
/// file with many hard links, or those beneath a directory. If there are more everything is forgotten,
/// which takes less. So many files are closed at a time, too.
pub const CACHE_INVALIDATIONS_MAX: usize = 512;

/// Events that one look-up takes in, some 0.3 ms of work. If there are more the cache is cleared,
/// and begins again when CACHE_FRESH has passed.
pub const CACHE_EVENTS_MAX: usize = 1024;

/// The stack of the thread that watches, in bytes. It goes a few calls deep; a stack of the usual
/// 2 MiB would be given a huge page.
pub const WATCH_STACK_BYTES: usize = 128 * 1024;

/// Reads of inotify events for watches that are gone, before the watching thread goes on: the
/// kernel queues 16,384 events if it isn't told otherwise, and a read takes a dozen of the longest.
pub const CACHE_DISCARDED_READS_MAX: usize = 2048;

/// A file up to this many bytes is kept with its contents, and no descriptor, if it goes by a copy
/// ([`COPIED_BODY_BYTES_MAX`]) or no descriptor is left; others are kept open, and go by sendfile.
pub const CACHED_CONTENTS_BYTES_MAX: u64 = 32 * 1024;

/// How long what was found in memory is taken for still there: the kernel takes what was used longest
/// ago, so this is far less than it needs to get to what was just sent. Of a file that is asked for
/// thousands of times a second, a handful of requests ask the kernel.
pub const RESIDENT_FRESH: Duration = Duration::from_millis(10);

/// The part of the descriptors for open files that the cache may fill: one in so many.
pub const CACHED_OPEN_SHARE: u64 = 2;

/// What one read of inotify takes, in bytes. The longest event has 272.
pub const INOTIFY_BUFFER_BYTES: usize = 4096;

/// Threads of one loop's pool that wait for local disks, and threads that wait for one remote
/// mount. They sleep nearly all of the time; a disk gains little by more than a few requests at
/// once.
pub const POOL_THREADS_MAX: usize = 4;

/// Versions of files whose digest is remembered, for all loops: some 3 MB.
pub const DIGESTS_MAX: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("more than none");

/// Files that wait to be hashed or are being hashed, each of which has a descriptor.
pub const DIGESTS_UNDER_WAY_MAX: usize = 16;

/// Threads that hash files, one a mount: seven that don't answer keep none from the eighth.
pub const DIGEST_THREADS_MAX: usize = 8;

/// How much of a file is read before it is hashed, in bytes: enough for a disk's speed.
pub const DIGEST_BUFFER_BYTES: usize = 256 * 1024;

/// Threads of one loop's pool that wait for remote mounts: eight mounts that don't answer keep
/// everybody from the ninth. One that waits for ever costs some 20 KiB.
pub const REMOTE_POOL_THREADS_MAX: usize = 8 * POOL_THREADS_MAX;

/// Links that are followed to find out which mount a path leads to. The kernel itself follows as many
/// (path_resolution(7)).
pub const LINKS_MAX: u32 = 40;

/// What a pool thread reads of a cold file at first, in bytes, and tells the kernel to read after
/// that: a client that breaks off soon shall not have cost much. Each further read of one body is
/// twice as long. Where the kernel can't tell which pages are in memory, what was read is
/// remembered by blocks of this size.
pub const COLD_BLOCK_BYTES: u64 = 64 * 1024;

/// What a pool thread reads of a cold file at most before the sender goes on, in bytes, and tells
/// the kernel to read after that, while the sender sends: a disk's seek takes as long as reading
/// about so much. A multiple of [`COLD_BLOCK_BYTES`] and of [`STEP_BYTES_MAX`].
pub const COLD_READ_BYTES: u64 = 1024 * 1024;

/// What a pool thread hands over to a connection at one time, in bytes: what each client of a
/// remote file may hold.
pub const TASK_RESULT_BYTES_MAX: u64 = 256 * 1024;

/// What pool threads have handed over to the connections of one loop and those have not sent yet,
/// in bytes. From half of it on a connection whose peer takes no more now keeps nothing, and has it
/// read again; the threads wait for their part of the other half.
pub const TASK_RESULTS_TOTAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What Linux reads ahead of somebody who reads in order, in bytes, unless told otherwise (`read_ahead_kb`).
pub const READ_AHEAD_USUAL_BYTES: u64 = 128 * 1024;

/// The buffer through which a pool thread reads what only has to be in memory afterwards, in bytes.
pub const READ_AHEAD_BUFFER_BYTES: usize = 128 * 1024;

/// Dead entries that the table of open files keeps before it is swept for the first time.
pub const OPEN_FILES_SWEEP_MIN: usize = 64;

/// Descriptors that are neither a connection nor a file: standard streams, epoll, the waker, the
/// signal pipe's two ends, the root, inotify, and a few to spare. The listeners come on top.
pub const DESCRIPTORS_RESERVED: u64 = 16;

/// Descriptors that each loop beside the first takes: epoll, the waker, inotify, its root and the
/// new one while that is opened anew, and a few to spare. Its listeners come on top.
pub const DESCRIPTORS_PER_LOOP: u64 = 8;

/// Loops that serve side by side. More than there are processors gain nothing, and Linux is built
/// for 512 of those as a rule.
pub const WORKERS_MAX: u64 = 512;

/// The part of the descriptor limit that is left for open files: one in so many.
pub const OPEN_FILES_SHARE: u64 = 4;

/// The length of the accept queue that is asked for. The kernel lowers it to `somaxconn`.
pub const BACKLOG: i32 = 4096;

/// From accept to the end of the request; absolute, not moved by single bytes.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may acknowledge nothing, or too little, while a file is sent to it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client waits for a disk that doesn't answer, a network's or FUSE's for instance.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the connections that wait for a disk or a descriptor are checked while few connections
/// are free: one whose peer has shut its side is ended. A disk that works has answered by then.
pub const SUSPENDED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a peer that is sent something is checked within the stall timeout. That it has stopped
/// taking is seen late by a twentieth of the timeout at most.
pub const STALL_CHECKS: u32 = 20;

/// Who has not taken in this part of the stall timeout, one in so many, what is enough for all of it may
/// lose its place to others: 15 s by default, longer than a network's hiccup.
pub const SLOW_SHARE: u32 = 4;

/// What a client may have of all connections by default, one in so many: four of them are needed to take
/// all, and a crowd behind one address has a good part.
pub const CLIENT_CONNECTIONS_SHARE: u64 = 4;

/// What it may have at least by default: a browser opens six, so ten behind one address have enough.
pub const CLIENT_CONNECTIONS_MIN: u64 = 64;

/// The table of clients keeps room for so many when most have left.
pub const CLIENTS_KEPT: usize = 1024;

/// The least of `--limit-rate`, in bytes a second. The kernel paces whole segments, of up to 64 KiB where
/// the peer is this machine: one in 16 s is well within the stall timeout.
pub const LIMIT_RATE_BYTES_MIN: u64 = 4 * 1024;

/// What a peer must take over the stall timeout, in bytes a second, or it loses its place: 3,840 bytes
/// within the default of 60 s, three segments. A modem of 1,200 baud takes twice as much.
pub const MIN_RATE_BYTES: u64 = 64;

/// The silence after which an unterminated name is taken as it stands. Longer than TCP's first
/// retransmission, so that one lost segment does not cut a name in two.
pub const NAME_GAP: Duration = Duration::from_secs(1);

/// The share of the name gap after which an empty line is taken for an empty name: the root, asked
/// for by a Gopher client that waits for its menu. An HTTP client sends its request right after
/// such a line; 200 ms is TCP's shortest retransmission time. One in so many.
pub const EMPTY_NAME_GAP_SHARE: u32 = 5;

/// How long the server goes on for the clients it has after the first signal.
pub const DRAIN: Duration = Duration::from_secs(30);

/// The longest duration that a flag takes; sums of it with the clock cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Log lines waiting for the writer, in bytes; beyond it info and debug lines are dropped.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// What a line on stderr shows of a client's request, in bytes after escaping. A client decides how
/// many lines there are and what stands in them; what it sends in one megabyte must not fill a disk
/// with four.
pub const LOG_TEXT_BYTES_MAX: usize = 256;

/// What a line of the access log shows of a request line, in bytes after escaping: nearly the
/// longest name. More of it isn't kept (NAME_BYTES_MAX).
pub const ACCESS_LOG_REQUEST_BYTES_MAX: usize = 1000;

/// What a line of the access log shows of a Referer or a User-Agent, in bytes after escaping: four
/// times what browsers send.
pub const ACCESS_LOG_FIELD_BYTES_MAX: usize = 500;

/// How many addresses a server lists when it is started at a terminal. Machines that run containers
/// have dozens.
pub const GREETING_ADDRESSES_MAX: usize = 6;

/// How long a log's writer gathers lines before it writes them: too short for a reader to notice, and at
/// 100,000 lines a second a thousand of them.
pub const LOG_GATHER: Duration = Duration::from_millis(10);

/// Room beyond LOG_QUEUE_BYTES_MAX that only warnings, errors and announcements may use.
pub const LOG_RESERVE_BYTES: usize = 64 * 1024;

/// How long the end of the program waits for a log writer whose reader is stuck.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);

/// The longest HTTP request line, its end not counted, in bytes. RFC 9112, section 3, asks for 8,000
/// at least.
pub const HTTP_LINE_BYTES_MAX: usize = 8 * 1024;

/// The longest head of an HTTP request, in bytes: room for the longest line and the cookies that
/// another server on the same host has set.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most header fields of an HTTP request. A browser sends about 15, a chain of proxies 30; other
/// servers stop at 100 or not at all.
pub const HTTP_FIELDS_MAX: usize = 128;

/// How many header fields there is a table for at first. A browser's fit in.
pub const HTTP_FIELDS_USUAL: usize = 16;

/// The longest body of an HTTP request, in bytes, that is awaited and thrown away, so that the
/// connection can go on: a form's.
pub const HTTP_SHORT_BODY_BYTES_MAX: u64 = 16 * 1024;

/// How long a short body may be silent before its request is answered without it.
pub const HTTP_BODY_GAP: Duration = Duration::from_secs(1);

/// What a lingering connection discards of a body that nobody reads, at most, in bytes. Many clients
/// look for the answer only when they have sent all.
pub const HTTP_BODY_LINGER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long a connection lingers in all for such a body. nginx does as long (`lingering_time`).
pub const HTTP_BODY_LINGER_TOTAL: Duration = Duration::from_secs(30);

/// Empty lines that are skipped before an HTTP request line. Old clients sent one after a body
/// (RFC 9112, section 2.2).
pub const HTTP_EMPTY_LINES_MAX: usize = 4;

/// The most ranges of one request. Viewers of documents ask for a handful; more is an attack
/// (RFC 9110, section 17.15), and gets the whole file.
pub const HTTP_RANGES_MAX: usize = 16;

/// How far the clock must have moved beyond a file's last change for its stamp to be that change's
/// alone, where this kernel made the stamp and keeps its nanoseconds: a jiffy of the slowest kernels
/// (HZ=100).
pub const FINE_STAMP_TICK: Duration = Duration::from_millis(10);

/// The same elsewhere: the coarsest clocks of file systems (FAT) tick every 2 s.
pub const COARSE_STAMP_TICK: Duration = Duration::from_secs(2);

/// The longest head of an HTTP answer that a client takes, with the interim ones before it, and the
/// most that a chunked body's extensions and trailers may come to, in bytes. curl takes 300 kB of
/// heads and 4 kB of trailers, Node 16 KiB of both.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most header fields of an HTTP answer. curl takes 5,000.
pub const RESPONSE_FIELDS_MAX: usize = 4096;

/// The client's time for one connection to be set up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The client's time without a byte before it gives up.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What the client reads at once, in bytes.
pub const CLIENT_BUFFER_BYTES: usize = 128 * 1024;

/// How often one HTTP download is tried again if nothing else is asked. With the delays below that
/// is seven seconds of trouble, enough for a server to be restarted.
pub const RETRIES: u64 = 3;

/// The client's rest before the first new try; each later one is twice as long.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The longest of these rests, unless the first is longer.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// How much of a server's `Retry-After` is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Redirects that one request follows.
pub const REDIRECTS_MAX: usize = 10;

/// By how much a `Date` must be later than `Last-Modified` for that to be a strong validator: RFC
/// 9110, 8.8.2.2, asks for enough to make up for two clocks, and RFC 7232 said a minute.
pub const STRONG_DATE_GAP: Duration = Duration::from_secs(60);

/// By how much a `Date` must be later than `Last-Modified` for a mirror to know the file by that: both are of
/// the server's clock, and tell seconds (RFC 9110, 8.8.2.2).
pub const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The longest `.part.meta` that is read, in bytes: a URL and a header field.
pub const META_BYTES_MAX: u64 = 128 * 1024;

/// Downloads at once that `get -j` takes.
pub const JOBS_MAX: u64 = 64;

/// The longest list that `get -r` reads, in bytes. It is in memory as a whole; a line of it takes some 150,
/// and no server shows more than some 100,000 entries in a way that anybody could use.
pub const MIRROR_LIST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What all lists of a `get -r` may name together. Each takes some 100 bytes until it is fetched. A list that
/// goes beyond is left out.
pub const MIRROR_ENTRIES_MAX: usize = 1_000_000;

/// The lists that a `get -r` reads: where links on a server lead back up, there is no end to them.
pub const MIRROR_LISTS_MAX: usize = 100_000;

/// How deep folders are that a `get -r` looks into, beneath the first.
pub const MIRROR_DEPTH_MAX: usize = 64;

/// How many of the names in a list that can't be files' are told of, one a line.
pub const MIRROR_COMPLAINTS_MAX: usize = 10;

/// The longest reply that `say` prints, in bytes.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// The longest line that answers a prompt, in bytes: far beyond the longest name.
pub const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A typed text has fewer bytes than this in UTF-8, with the end of its line. A character of one byte
/// in an older encoding takes up to three.
pub const TYPED_TEXT_BYTES_MAX: u64 = 3 * TEXT_BYTES_MAX as u64 + 3;

/// How often a `.part` that another download renamed or removed meanwhile is opened anew. Once is
/// the rule; more means that others keep taking the same name.
pub const PART_ATTEMPTS_MAX: u32 = 8;

/// How many names beside a file are tried for a `.part`: the first ones may be other users', and if
/// all of them are somebody means it.
pub const PART_NAMES_MAX: u32 = 8;

/// The longest name of a file, in bytes: `NAME_MAX` of Linux.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// What a soak learns of a first download is a hash of each block of so many bytes: 8 bytes of
/// memory for 16 KiB, and a wrong byte is found within as many.
pub const SOAK_BLOCK_BYTES: u64 = 16 * 1024;

/// Local files that a soak holds open to compare with. More are opened for each body.
pub const SOAK_OPEN_FILES_MAX: usize = 256;

/// Descriptors of a soak that are neither clients nor files to compare with.
pub const SOAK_DESCRIPTORS_RESERVED: u64 = 32;

/// How long a client of the closed model rests after it could not connect: a server that refuses is
/// not to be asked a hundred thousand times a second.
pub const SOAK_BACK_OFF: Duration = Duration::from_millis(100);

/// Local addresses that the clients of a soak are bound to in turn at most: those of a /16.
pub const SOAK_SOURCES_MAX: usize = 1 << 16;

/// Downloads at once by which a soak learns what names bring.
pub const SOAK_LEARNERS: u32 = 8;

/// How many requests a soak starts before those under way have their turn.
pub const SOAK_STARTS_MAX: u32 = 128;

/// How late an arrival of the open model may be begun to count as load that was offered. It is far
/// beyond what a scheduler or a timer does.
pub const SOAK_LATE_MAX: Duration = Duration::from_millis(250);

/// How often a soak looks at its own clock: for the live view, and whether it is over.
pub const SOAK_TICK: Duration = Duration::from_millis(250);

/// What one client of a soak reads in one step before the others have their turn, in reads.
pub const SOAK_READS_MAX: u32 = 16;

/// How often a slow client reads.
pub const SOAK_PACE: Duration = Duration::from_millis(100);

/// Where a client that breaks off does so at the latest when the body's length isn't known.
pub const SOAK_ABORT_BYTES_MAX: u64 = 64 * 1024;

/// How long a soak offers load if nothing else is asked.
pub const SOAK_DURATION: Duration = Duration::from_secs(10);

/// The loads of a run whose server is watched, by default: one to warm up, and three to see what repeats.
pub const SOAK_STAGES: f64 = 4.0;

/// The shortest of these loads, by default: a pause takes a fifth of a second.
pub const SOAK_STAGE_MIN: Duration = Duration::from_secs(1);

/// The longest of these loads, by default: quiet points of a night are many then.
pub const SOAK_STAGE_MAX: Duration = Duration::from_secs(600);

/// How often a watched server is looked at in a run, by default: enough for as many floors as a trend takes.
pub const SOAK_SAMPLES: u32 = 200;

/// The time between two looks, by default: the least, which is five of the kernel's ticks of CPU time; that of
/// a run whose length isn't known; and the most.
pub const SOAK_SAMPLE_EVERY: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// The longest warm-up that counts for no slope by default.
pub const SOAK_WARM_UP_MAX: Duration = Duration::from_secs(60);

/// The share of arrivals that may have been started late, or never, in a load that counts as offered.
pub const SOAK_MISSING_SHARE_MAX: f64 = 0.005;

/// The longest time that a histogram of the soak tester holds, a day, in microseconds.
pub const SOAK_LONGEST_US: u64 = 24 * 3600 * 1_000_000;

/// The stretches that a run is cut into, at most; there are half as many at least, in a longer one. As many
/// tell well enough how stretches differ, and what each holds is a few kilobytes.
pub const STRETCHES_MAX: usize = 64;

/// The stretches from whose differences something can be told.
pub const STRETCHES_MIN: usize = 4;

/// With fewer stretches two servers are not compared: Student's t of seven is a third larger than the normal law's.
pub const COMPARED_STRETCHES_MIN: usize = 8;

/// How many margins of a difference's interval above its threshold one must be, to be found 95 times in 100: by
/// the normal law, (2.58 + 1.64) / 2.58.
pub const DIFFERENCE_FOUND_MARGINS: f64 = 1.64;

/// What must be left by each load, in steps, to be found 19 times in 20: fewer may come unevenly, and look like
/// a cache that fills.
pub const LEFT_FOUND_PER_LOAD: f64 = 10.0;

/// A load that leaves less than this part of what one before it has left is a sign of a cache that fills.
pub const LEFT_SLOWS: f64 = 1.0 / 3.0;

/// The largest number that a report of soak may hold, which is read back: those up to it are whole in floating
/// point, and thousands of them can be added.
pub const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// The looks at a server that are kept while a run goes on. When there are more, each second one is forgotten,
/// and they are twice as rare from then on: a day's take as much memory as an hour's.
pub const WATCH_SAMPLES_MAX: usize = 20_000;

/// The entries that a report has of a run's seconds: of four hours. When there are more, each two become one.
pub const SECONDS_MAX: usize = 4 * 3600;

/// A notch of `--find`: the factor between two rates of its walk.
pub const SEARCH_NOTCH: f64 = 1.02;

/// How often the walk of `--find` crosses the highest rate that holds. Of eight crossings the least and the
/// greatest have the median between them with a chance of 1 - 2^-7. Where they are notches apart it is twice as
/// often, as neighbours are alike then.
pub const SEARCH_CROSSINGS: usize = 8;

/// The steps of such a walk, at most.
pub const SEARCH_WALK_MAX: usize = 60;

/// How many steps a walk goes straight on before its notches double: chance seldom does that.
pub const SEARCH_STRAIGHT: u32 = 3;

/// How much higher the highest rate that holds must be on the way up than from above, to be another one: more
/// than the walk's own crossings differ.
pub const SEARCH_HYSTERESIS: f64 = 1.05;

/// What an overload of `--find` is above the highest rate that holds.
pub const SEARCH_OVERLOAD: f64 = 1.25;

/// How long the rate that `--find` ends with is offered, in steps: a little below the highest one, times are
/// told apart from the bound's by three times as many requests.
pub const SEARCH_HOLD_STEPS: u32 = 3;

/// Rates that are tried so, one notch below the one before, then two, then three: the last is a good half of
/// the first.
pub const SEARCH_HOLDS: i32 = 8;

/// How often a step of `--find` is tried that was not offered: a machine may be busy for a moment.
pub const SEARCH_TRIES: u32 = 3;

/// The looks that a trend needs.
pub const TREND_LOOKS_MIN: usize = 20;

/// How often a trend may leave out the first half of what it was fitted to.
pub const TREND_PARTS: u32 = 3;

/// The stretches whose floors a trend is fitted to, at most: more would tell no more, as those of one cycle
/// are alike.
pub const TREND_FLOORS_MAX: usize = 60;

/// The same, at least. Three are used up by the curve; with fewer the correlation of neighbours is a guess.
pub const TREND_FLOORS_MIN: usize = 12;

/// The independent floors that a trend's must be worth: three beside those that the curve uses up.
pub const TREND_EFFECTIVE_FLOORS_MIN: f64 = 12.0;

/// A fall by so large a part of the range of the looks (of its middle nine tenths) ends a cycle.
pub const TREND_FALL_SHARE: f64 = 0.3;

/// Steps of memory that a trend can't be sure of, over its whole time, however still it is between them.
pub const TREND_STEPS_UNSURE: f64 = 4.0;

/// The leak that is found 19 times in 20, in half widths of the interval: one to be beyond it at all, and the
/// rest for the chance that the fit is lower, or the interval wider. By the proof in src/soak/synthetic.rs.
pub const TREND_FOUND_MARGINS: f64 = 2.5;

/// What the kernel's count of a process's pages may be behind, in bytes: it adds up what each core has counted
/// when that is 32 pages (percpu_counter, since Linux 6.2; each thread 64 before).
pub const RSS_STEP_BYTES: f64 = 32.0 * 4096.0;

/// Samples of the server that a report holds, about. A plot is not finer than that.
pub const REPORT_SAMPLES: usize = 2000;

/// How often the server is sampled, at least, while a run waits for it to come to rest.
pub const SETTLE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Entries of a directory that a pool thread reads, or renders, before it checks whether the list
/// is still wanted, and whether there is memory for it: some 100 us of work.
pub const LISTING_SLICE_ENTRIES: usize = 64;

/// Entries that a list shows at most: those that come first in its order. It says so, and how many
/// there are. With the longest names that is a page of 200 MB, which [`LISTINGS_BYTES_MAX`] has room for.
pub const LISTING_ENTRIES_MAX: usize = 100_000;

/// What all lists of a loop may take in memory, in bytes, finished or under way. Whoever asks for one
/// when it is used up is told to try again.
pub const LISTINGS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Entries that a folder and those beneath may have for a tar of it. Its plan takes some 150 bytes for each,
/// of what [`LISTINGS_BYTES_MAX`] leaves, and a thread walks 200,000 of them in a second.
pub const ARCHIVE_ENTRIES_MAX: usize = 500_000;

/// What a tar's member takes at most in a piece, in bytes: a head with two of the longest paths, and a file
/// that is short enough to be copied.
pub const ARCHIVE_MEMBER_BYTES_MAX: u64 = 48 * 1024;

/// The longest path of a file, in bytes: `PATH_MAX` of Linux, which counts the zero at its end.
pub const PATH_BYTES_MAX: usize = 4095;

/// A list of so many bytes is freed by a pool thread: it is some 50 us of work.
pub const LISTING_FREED_BYTES_MIN: usize = 1024 * 1024;

/// The fields that the operator adds to one answer, in bytes: some clients and proxies take no more
/// than 8 KiB of a head, and carafe's own fields need room beside them.
pub const CUSTOM_FIELDS_BYTES_MAX: usize = 6 * 1024;

/// For how long a browser needn't ask again whether it may ask, in seconds. Chromium takes no more.
pub const CORS_PREFLIGHT_SECONDS: u64 = 2 * 60 * 60;

/// What Retry-After says to a client whose list found no memory, in seconds. A large one takes that
/// long to be sent.
pub const LISTING_RETRY_SECONDS: u64 = 5;

/// The bounds of the histograms of durations, for turns of the loop and for requests: below 100
/// microseconds a turn is idle, above 50 ms clients feel it.
pub const HISTOGRAM_BOUNDS: [Duration; 13] = [
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// How long a new process may take until it is ready to take over. ROOT is looked at by then.
pub const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest message between processes that succeed one another, in bytes: why one could not be started.
pub const SUCCESSION_MESSAGE_BYTES_MAX: usize = 1024;

/// The longest PROXY header, in bytes. Version 1 has 107 at most; what version 2 may say beside addresses is
/// short, but for a client's certificate.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;

/// What is kept of X-Forwarded-For, in bytes: its end, with some dozen proxies' addresses.
pub const FORWARDED_FOR_BYTES_MAX: usize = 512;

/// The longest path of a unix socket, in bytes: the kernel's `sun_path` (unix(7)) without its end.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// A service manager with a watchdog hears of the loop so often within its time: half of it is what
/// sd_watchdog_enabled(3) advises.
pub const WATCHDOG_BEATS: u32 = 2;

/// How often the service manager is told how many clients there are, if that has changed: a person looks
/// at it.
pub const SERVICE_STATUS_EVERY: Duration = Duration::from_secs(10);

/// When what a service manager must know is said again, if its queue had no room.
pub const SERVICE_RETRY: Duration = Duration::from_millis(100);

/// Connections to the metrics at once; more of them wait. A monitor or two need one each.
pub const METRICS_CONNECTIONS_MAX: usize = 8;

/// The accept queue of the metrics.
pub const METRICS_BACKLOG: i32 = 64;

/// The longest request for metrics, in bytes. Monitors send a few hundred.
pub const METRICS_HEAD_BYTES_MAX: usize = 8 * 1024;

/// The most header fields in it.
pub const METRICS_HEADERS_MAX: usize = 64;

/// What one read of a TLS connection takes, in bytes, what is kept of a record that came in part
/// included: a longest record (RFC 5246, 6.2.3: 18 KiB and a header). A message of the handshake that
/// takes more ends the connection.
pub const TLS_INPUT_BYTES: usize = 20 * 1024;

/// What one write encrypts at most, in bytes: the loop's scratch buffer, four full records. What the
/// socket doesn't take of it is kept until it does.
pub const TLS_WRITE_BYTES_MAX: usize = SCRATCH_BYTES;

/// What so many bytes become at most, in bytes: a header and a tag for each record of 16 KiB, beside a
/// change of keys.
pub const TLS_OUTPUT_BYTES: usize = TLS_WRITE_BYTES_MAX + 1024;

/// Full handshakes that a loop begins in one turn, before the others have theirs: one costs as much as
/// the plain answers of a turn (0.1 ms with an ECDSA key, 0.3 ms with RSA).
pub const TLS_HANDSHAKES_PER_TURN_MAX: u32 = 2;

/// Steps of clients for which one more is begun: some 0.5 ms of answers by TLS. Without it a turn in which
/// thousands ask would begin no more than one in which nobody does, and newcomers would wait for minutes.
pub const TLS_STEPS_PER_HANDSHAKE: u32 = 16;

/// How often certificates are looked at for their end.
pub const TLS_EXPIRY_CHECK: Duration = Duration::from_secs(3600);

/// How long before a certificate's end there is a warning. Whoever renews by ACME does so a month
/// before, so this is one that nobody renews.
pub const TLS_EXPIRY_WARNING: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many seconds of what it did a trace holds by default: what somebody saw is a moment ago.
pub const TRACE_FOR: Duration = Duration::from_secs(60);

/// What each thread keeps for a trace: system calls, steps and waits, of 80 bytes. A warm download makes a
/// dozen; a browser shows so many with ease.
pub const TRACE_RECORDS_MAX: usize = 64 * 1024;

/// The names that each thread keeps for a trace, of up to [`LOG_TEXT_BYTES_MAX`] bytes as they are shown.
pub const TRACE_NAMES_MAX: usize = 8 * 1024;

/// How many threads are traced: 32 loops and what waits for their disks. Together 64 threads keep no more
/// than 500 MB, and with one loop 7 MB beside the names.
pub const TRACE_THREADS_MAX: usize = 64;

/// How many clients a trace's page lists, those that were sent most first. All have their lanes.
pub const TRACE_CLIENTS_LISTED: usize = 50;

/// How exact the kernel's times of a connection are (`tcp_get_info` reads them in ticks, of which there are a
/// hundred to a thousand a second): what is shorter means nothing.
pub const TCP_INFO_TICK: Duration = Duration::from_millis(10);

/// A step that takes longer is compared with what the loop's thread has run: it may not have run at all for a
/// while. Few steps do, and a scheduler's slice is longer.
pub const LONG_STEP: Duration = Duration::from_millis(1);

/// How old what is known of the thread's time may be when a step begins, and so how wrong that comparison:
/// it takes a system call.
pub const THREAD_CLOCK_AGE_MAX: Duration = Duration::from_micros(100);

/// How long a call of `notes` waits for what is on its way already: a bound for a machine that stands still.
pub const NOTES_RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client of `notes` waits for a place in a queue that is full: less than a SYN's second try
/// (a second), so that the first one is seen to be lost.
pub const NOTES_CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// The same signal within so much time is one and not two: timeout(1) sends its own to the program and then to
/// the program's group. Nobody presses ^C twice as fast.
pub const SIGNAL_PAIR_TIME: Duration = Duration::from_millis(100);
