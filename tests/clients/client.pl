#!/usr/bin/env perl
# A client of the wire protocol: client.pl HOST PORT uses each operation once, and prints what comes back.
use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP;
my ($host, $port) = @ARGV;
my ($door, $json) = (undef, JSON::PP->new->canonical);
sub connect_again { $door = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) or die "no server: $@" }
sub say_to_it { my %request = @_; print $door $json->encode(\%request), "\n"; $door->flush }
sub receive { my $line = <$door> // die "closed"; print $line; return $json->decode($line) }
sub ask { say_to_it(@_); return receive() }

connect_again();
ask(op => "ping");
my $session = ask(op => "session")->{session};
ask(op => "session", session => $session);
ask(key => "snack", value => "chips", session => $session, seq => 1);
ask(key => "snack");
ask(op => "cas", key => "snack", expected => "chips", value => "nuts");
my @incr = (op => "incr", key => "visits", by => 2, session => $session, seq => 2);
say_to_it(@incr);
connect_again();    # The answer is lost: the same request under the same seq has it.
ask(@incr);
ask(key => "crumbs", value => 1, ttl => 3600);
ask(op => "scan", prefix => "s", limit => 10);
ask(op => "txn", if => [{ key => "snack", equals => "nuts" }], session => $session, seq => 3,
    then => [{ op => "incr", key => "visits", by => 1 }, { op => "get", key => "visits" }]);
ask(op => "watch", prefix => "sn", id => "w");
ask(op => "delete", key => "snack") && receive();    # The reply and the event, in either order.
ask(op => "unwatch", id => "w");
ask(op => "status");
