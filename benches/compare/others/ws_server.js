// Node's ws: its own send of a text to each client.
'use strict';
const http = require('http');
const WebSocket = require('ws');

const [port, processor, , bytes, deflate] = process.argv.slice(2);
require('child_process').execFileSync('taskset', ['-a', '-cp', processor, String(process.pid)]);
// As benches/compare/server.py has it, as far as it matters: text that can be compressed.
const letters = 'etaoin shrdlu', weights = [...letters].map((_, place) => letters.length - place);
let seed = Number(bytes), text = '';
while (text.length < Number(bytes)) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    let place = 0, rest = seed % weights.reduce((sum, weight) => sum + weight);
    while (rest >= weights[place]) rest -= weights[place++];
    text += letters[place];
}

const server = http.createServer(), clients = new Set();
// With a threshold of its own of a kibibyte, unless all is to be compressed.
const sockets = new WebSocket.Server({server, perMessageDeflate: deflate !== undefined && {threshold: 0}});
sockets.on('connection', (socket, request) => {
    if (request.url === '/all') {
        clients.add(socket);
        socket.on('close', () => clients.delete(socket));
        return;
    }
    socket.on('message', data => {
        if (data.toString() === 'broadcast') {
            for (const client of clients) client.send(text);
            return;
        }
        const {user, system} = process.cpuUsage();
        socket.send(String((user + system) * 1000));
    });
});
server.listen(Number(port), '127.0.0.1');
