//! Micro benchmarks of what is done once a row: `make bench` runs them, and `cargo bench` does.

#![allow(clippy::unwrap_used, reason = "a tool for measuring may panic")]

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use haproxy_server::decide::plan::plan;
use haproxy_server::haproxy::parse::{AnyRow, StatHeader, StateHeader};
use haproxy_server::model::goal::{Goal, Switch};
use haproxy_server::model::matcher::Matcher;
use haproxy_server::model::name::{Selection, Selector};
use haproxy_server::model::server::{Server, ServerState, Uniqueness};
use haproxy_server::model::state::{AdminFlags, AdminState, OperationalState};
use haproxy_server::report::to_ascii_json;

/// Allocations are counted as well: memory is what grows with the servers.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const STATE_HEADER: &[u8] = b"# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
    srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
    srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port \
    srv_check_addr srv_agent_addr srv_agent_port";
const STATE_ROW: &[u8] =
    b"1003 web_backend 7 web-server-7 192.168.100.107 2 0 100 100 3600 15 3 4 6 0 0 0 - 8080 - 0 0 - - 0";

/// Of HAProxy 3.2, up to the last column that is read; the row is whole, with as many values again that are not looked at.
const STAT_HEADER: &[u8] =
    b"# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,\
    act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,\
    check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,\
    req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,\
    qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,\
    check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,\
    intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,\
    rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,\
    agg_server_check_status,agg_check_status,srid,sess_other";
const STAT_ROW: &[u8] =
    b"web_backend,web-server-7,0,0,12,0,,3456,0,0,,0,,0,0,0,0,UP,100,1,0,,,831,,,1,1003,7,,0,,2,0,,0,L7OK,200,1,0,0,0,\
    0,0,0,,,,0,0,0,,,,,-1,,,0,0,0,0,,,,,,2,3,4,,,,127.0.0.6:8002,,http,,,,,,,,0,0,0,,,0,,0,0,0,0,0,0,0,0,0,1,,,,0,,,\
    ,,,,,,,-,0,0,0,0,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,";

fn main() {
    divan::main();
}

/// Reads one row of `show servers state`; nine of ten are not wanted.
#[divan::bench(args = [false, true])]
fn state_row(bencher: Bencher<'_, '_>, is_wanted: bool) {
    let header = StateHeader::parse(STATE_HEADER).unwrap();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        match header.row(black_box(STATE_ROW), |_, _, server, _| (server == b"web-server-7") == is_wanted).unwrap() {
            AnyRow::Wanted(row) => row.weight,
            AnyRow::Other(_) => 0,
        }
    });
}

/// Reads one row of `show stat`.
#[divan::bench]
fn stat_row(bencher: Bencher<'_, '_>) {
    let header = StatHeader::parse(STAT_HEADER).unwrap();
    bencher.counter(ItemsCount::new(1usize)).bench(|| header.row(black_box(STAT_ROW)).unwrap());
}

/// Looks a server up in as many selectors, of which half are names and half are patterns.
#[divan::bench(args = [1, 16, 1_000, 60_000])]
fn match_server(bencher: Bencher<'_, '_>, count: usize) {
    let written =
        (0..count).map(|index| if index % 2 == 0 { format!("b{index}/web-{index}") } else { format!("web-{index}-*") });
    let servers: Vec<Selector> = written.map(|text| Selector::parse(&text).unwrap()).collect();
    let matcher = Matcher::new(Selection { servers: &servers, backends: &[], addresses: &[] });
    let is_meant = |server: &[u8]| matcher.matches(b"b10", server, || ("192.168.100.107", "8080"));
    bencher.counter(ItemsCount::new(2usize)).bench(|| (is_meant(black_box(b"web-10")), is_meant(black_box(b"app-10"))));
}

/// Prepares as many selectors for that.
#[divan::bench(args = [1_000, 60_000])]
fn prepare_selectors(bencher: Bencher<'_, '_>, count: usize) {
    let servers: Vec<Selector> = (0..count).map(|index| Selector::parse(&format!("web-{index}-*")).unwrap()).collect();
    let selection = Selection { servers: &servers, backends: &[], addresses: &[] };
    bencher.counter(ItemsCount::new(count)).bench(|| Matcher::new(black_box(selection)));
}

/// Plans servers of one name, each in a backend of its own.
#[divan::bench(args = [10, 1_000, 10_000])]
fn plan_maint(bencher: Bencher<'_, '_>, count: u32) {
    let servers: Vec<Server> = (0..count).map(server).collect();
    let goal = Goal { state: Some(AdminState::Maint), ..Goal::default() };
    let wishes: Vec<(&Server, Goal)> = servers.iter().map(|server| (server, goal)).collect();
    bencher.counter(ItemsCount::new(count)).bench(|| plan(black_box(&wishes)));
}

/// Writes a text as JSON, as each name of a report is.
#[divan::bench]
fn json_text(bencher: Bencher<'_, '_>) {
    bencher.bench(|| to_ascii_json(std::io::sink(), &black_box("set server web_backend/web-server-7 state maint")));
}

fn server(index: u32) -> Server {
    Server {
        backend: format!("web_backend_{index}").into(),
        backend_name: Uniqueness::Unique,
        server: "web-server-7".into(),
        backend_id: index + 3,
        server_id: 7,
        address: "192.168.100.107:8080".into(),
        has_address: true,
        state: ServerState {
            flags: AdminFlags(0),
            operational: OperationalState::Running,
            weight: 100,
            health: Some(Switch::Enabled),
            agent: None,
        },
        configured_weight: 100,
        statistics: None,
    }
}
