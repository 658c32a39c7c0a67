//! The nine notes. Each scene makes its calls on 127.0.0.1, in one thread, in the order that is shown;
//! where it teaches, something goes wrong first.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::chart::Side::{Client, Server};
use super::chart::{Chart, Note};
use super::talk::address_of;

/// Any free port of this machine.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// As many as the first server of the notes lets wait.
const BACKLOG: i32 = 128;

pub(super) const NOTES: [Note; 9] = [
    Note {
        says: [
            "A server binds its socket, or nobody finds it.",
            "服务器要绑定地址和端口，否则谁也找不到它。",
        ],
        play: a_server_binds,
        because: &[
            "bind gives a socket its address. Without it the kernel chooses a port, and",
            "only the server could say which.",
        ],
        man: "2 bind",
        here: ("bind", "src/daemon/listeners.rs"),
    },
    Note {
        says: [
            "A client usually doesn't bind: any port will do.",
            "客户端一般不绑定，由系统随便分一个端口。",
        ],
        play: a_client_does_not_bind,
        because: &[
            "It calls, so nobody has to find it. connect takes a port that is free; one",
            "that is asked for may be taken.",
        ],
        man: "7 ip",
        here: ("connect", "src/download/connection.rs"),
    },
    Note {
        says: [
            "listen makes a socket passive: it takes connections and makes none.",
            "listen 把主动套接字变成被动的，只等别人来连接。",
        ],
        play: listen_makes_passive,
        because: &[
            "The kernel finishes handshakes for a listening socket and puts the",
            "connections into its accept queue, at most backlog of them. Bytes never come",
            "by it.",
        ],
        man: "2 listen",
        here: ("bind", "src/daemon/listeners.rs"),
    },
    Note {
        says: [
            "A client connects before it sends.",
            "客户端先连接，连上以后才能收发数据。",
        ],
        play: a_client_connects_first,
        because: &[
            "A TCP socket without a connection has nowhere to send to. Who doesn't ignore",
            "SIGPIPE is ended by that send.",
        ],
        man: "2 connect",
        here: ("connect", "src/download/connection.rs"),
    },
    Note {
        says: [
            "Each client that is accepted gets a new socket of its own.",
            "每接受一个客户端，就有一个专门为它服务的新套接字。",
        ],
        play: a_socket_for_each,
        because: &[
            "The kernel tells connections apart by both addresses and both ports, so all",
            "of them share the server's port. carafe serve keeps each new socket in a",
            "slot of a slab: a vector whose slots are used again.",
        ],
        man: "2 accept",
        here: ("accept", "src/reactor/listener.rs"),
    },
    Note {
        says: [
            "The listening socket takes new clients, the accepted one is that client.",
            "监听套接字接新客户端，accept 返回的套接字对应那一个客户端。",
        ],
        play: both_at_once,
        because: &[
            "Who connects while another is served waits in the accept queue. When that is",
            "full, the kernel drops the SYN, and the client tries again after a second.",
        ],
        man: "2 listen",
        here: ("turn", "src/reactor.rs"),
    },
    Note {
        says: [
            "Closing the listening socket keeps new clients out; accepted ones go on.",
            "关闭监听套接字，新客户端连不上，已连接的照常通信。",
        ],
        play: closing_the_listener,
        because: &[
            "Who had connected and was not accepted is reset, though it did nothing",
            "wrong: so carafe serve accepts all of them before it closes.",
        ],
        man: "2 close",
        here: ("begin_drain", "src/reactor/shutdown.rs"),
    },
    Note {
        says: [
            "Closing the accepted socket ends that client's service.",
            "关闭 accept 返回的套接字，对这个客户端的服务就结束了。",
        ],
        play: closing_the_accepted,
        because: &[
            "A close with unread input is a reset, and what the kernel had accepted and",
            "not yet delivered is gone: so carafe serve reads before it closes.",
        ],
        man: "2 close, RFC 2525 2.17",
        here: ("linger", "src/conn/sending.rs"),
    },
    Note {
        says: [
            "When the client closes, recv returns 0: so the server learns of it.",
            "客户端一关闭，recv 返回长度 0，服务器就知道它走了。",
        ],
        play: the_zero_read,
        because: &[
            "Zero bytes say that no more will come, and nothing else. Who only half-",
            "closes still reads, so carafe serve answers a name that ends so.",
        ],
        man: "2 shutdown",
        here: ("read", "src/conn/reading.rs"),
    },
];

/// A server's socket that listens, without being drawn: how it came about was seen before.
fn listener(backlog: i32) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&ANYWHERE.into())?;
    socket.listen(backlog)?;
    let address = address_of(&socket)?;
    Ok((socket, address))
}

/// What should have worked.
fn must<T>(outcome: Result<T, nix::errno::Errno>) -> io::Result<T> {
    Ok(outcome?)
}

/// A client that has connected, and its socket here.
fn connected(chart: &mut Chart<'_>, server: &Socket, at: SocketAddr) -> io::Result<[Socket; 2]> {
    let client = chart.socket(Client)?;
    must(chart.connect(&client, at)?)?;
    let accepted = must(chart.accept(server)?)?;
    Ok([client, accepted])
}

fn a_server_binds(chart: &mut Chart<'_>) -> io::Result<()> {
    // Holds the port on which both have agreed, until the server binds it.
    let agreed = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    agreed.bind(&ANYWHERE.into())?;
    let at = address_of(&agreed)?;
    chart.heading("It goes wrong: without bind")?;
    let server = chart.socket(Server)?;
    must(chart.listen(&server, BACKLOG)?)?;
    chart.address(Server, &server)?;
    let client = chart.socket(Client)?;
    let _ = chart.connect(&client, at)?;
    drop((server, client, agreed));
    chart.heading("With bind")?;
    let server = chart.socket(Server)?;
    must(chart.bind(Server, &server, at)?)?;
    must(chart.listen(&server, BACKLOG)?)?;
    let [client, accepted] = connected(chart, &server, at)?;
    chart.close(Client, client)?;
    chart.close(Server, accepted)
}

fn a_client_does_not_bind(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("Two clients, two ports")?;
    let clients = [chart.socket(Client)?, chart.socket(Client)?];
    let mut accepted = Vec::new();
    let mut taken = ANYWHERE;
    for client in &clients {
        must(chart.connect(client, at)?)?;
        taken = chart.address(Client, client)?;
        accepted.push(must(chart.accept(&server)?)?);
    }
    chart.heading("It goes wrong: one wants a port that is taken")?;
    let picky = chart.socket(Client)?;
    let _ = chart.bind(Client, &picky, taken)?;
    drop((clients, accepted));
    Ok(())
}

fn listen_makes_passive(chart: &mut Chart<'_>) -> io::Result<()> {
    chart.heading("It goes wrong: bound, and not listening")?;
    let server = chart.socket(Server)?;
    must(chart.bind(Server, &server, ANYWHERE)?)?;
    let at = chart.address(Server, &server)?;
    let client = chart.socket(Client)?;
    let _ = chart.connect(&client, at)?;
    let _ = chart.accept(&server)?;
    chart.heading("Listening")?;
    must(chart.listen(&server, BACKLOG)?)?;
    let client = chart.socket(Client)?;
    must(chart.connect(&client, at)?)?;
    must(chart.send(Client, &client, "a name")?)?;
    chart.heading("Its bytes don't come by the listening socket")?;
    let _ = chart.receive(Server, &server)?;
    let accepted = must(chart.accept(&server)?)?;
    must(chart.receive(Server, &accepted)?)?;
    Ok(())
}

fn a_client_connects_first(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("It goes wrong: send without connect")?;
    let client = chart.socket(Client)?;
    let _ = chart.send(Client, &client, "a name")?;
    chart.heading("With connect")?;
    must(chart.connect(&client, at)?)?;
    let accepted = must(chart.accept(&server)?)?;
    must(chart.send(Client, &client, "a name")?)?;
    must(chart.receive(Server, &accepted)?)?;
    chart.close(Client, client)?;
    chart.close(Server, accepted)
}

fn a_socket_for_each(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("Two clients")?;
    let [first, second] = [chart.socket(Client)?, chart.socket(Client)?];
    must(chart.connect(&first, at)?)?;
    must(chart.connect(&second, at)?)?;
    let for_first = must(chart.accept(&server)?)?;
    let for_second = must(chart.accept(&server)?)?;
    chart.heading("What one says isn't mixed with what the other says")?;
    must(chart.send(Client, &second, "second")?)?;
    must(chart.send(Client, &first, "first")?)?;
    must(chart.receive(Server, &for_first)?)?;
    must(chart.receive(Server, &for_second)?)?;
    chart.heading("All of them have the server's port")?;
    chart.address(Server, &for_first)?;
    chart.address(Server, &for_second)?;
    Ok(())
}

/// Three clients, of which the first has connected, and its socket here.
fn one_of_three_is_served(
    chart: &mut Chart<'_>,
    server: &Socket,
    at: SocketAddr,
) -> io::Result<([Socket; 3], Socket)> {
    let clients = [
        chart.socket(Client)?,
        chart.socket(Client)?,
        chart.socket(Client)?,
    ];
    must(chart.connect(&clients[0], at)?)?;
    let serving = must(chart.accept(server)?)?;
    Ok((clients, serving))
}

fn both_at_once(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(0)?;
    chart.heading("One is served, another connects (the backlog is 0: one may wait)")?;
    let ([_first, second, third], serving) = one_of_three_is_served(chart, &server, at)?;
    must(chart.send(Server, &serving, "a part")?)?;
    must(chart.connect(&second, at)?)?;
    must(chart.send(Server, &serving, "the rest")?)?;
    chart.heading("It goes wrong: the accept queue is full")?;
    let _ = chart.connect_in_vain(&third, at)?;
    chart.heading("Accepted, the second makes room")?;
    let waited = must(chart.accept(&server)?)?;
    let third = chart.socket(Client)?;
    must(chart.connect(&third, at)?)?;
    drop(waited);
    Ok(())
}

fn closing_the_listener(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("One is accepted, another is not yet")?;
    let ([first, second, third], serving) = one_of_three_is_served(chart, &server, at)?;
    must(chart.connect(&second, at)?)?;
    chart.heading("The listening socket is closed")?;
    chart.close_listener(Server, server)?;
    let _ = chart.connect(&third, at)?;
    must(chart.send(Server, &serving, "goes on")?)?;
    must(chart.receive(Client, &first)?)?;
    chart.heading("It goes wrong: who waited in the accept queue is reset")?;
    let _ = chart.receive(Client, &second)?;
    Ok(())
}

fn closing_the_accepted(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("All was read before the close")?;
    let [client, accepted] = connected(chart, &server, at)?;
    must(chart.send(Server, &accepted, "bytes")?)?;
    chart.close(Server, accepted)?;
    must(chart.receive(Client, &client)?)?;
    must(chart.receive(Client, &client)?)?;
    chart.heading("It goes wrong: the client had said something that nobody read")?;
    let [client, accepted] = connected(chart, &server, at)?;
    must(chart.send(Client, &client, "a name")?)?;
    must(chart.send_much(Server, &accepted)?)?;
    chart.close(Server, accepted)?;
    chart.receive_all(Client, &client)
}

fn the_zero_read(chart: &mut Chart<'_>) -> io::Result<()> {
    let (server, at) = listener(BACKLOG)?;
    chart.heading("The client closes")?;
    let [client, accepted] = connected(chart, &server, at)?;
    chart.close(Client, client)?;
    must(chart.receive(Server, &accepted)?)?;
    chart.close(Server, accepted)?;
    chart.heading("A half-close looks the same, but its client still reads")?;
    let [client, accepted] = connected(chart, &server, at)?;
    must(chart.send(Client, &client, "a name")?)?;
    chart.half_close(Client, &client)?;
    must(chart.receive(Server, &accepted)?)?;
    must(chart.receive(Server, &accepted)?)?;
    must(chart.send(Server, &accepted, "its bytes")?)?;
    must(chart.receive(Client, &client)?)?;
    chart.close(Server, accepted)?;
    chart.heading("It goes wrong: a server that takes zero for \"it has gone\"")?;
    let [client, accepted] = connected(chart, &server, at)?;
    must(chart.send(Client, &client, "a name")?)?;
    chart.half_close(Client, &client)?;
    must(chart.receive(Server, &accepted)?)?;
    must(chart.receive(Server, &accepted)?)?;
    chart.close(Server, accepted)?;
    must(chart.receive(Client, &client)?)?;
    Ok(())
}
