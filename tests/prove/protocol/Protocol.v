(* SPDX-License-Identifier: GPL-2.0-only *)

(** * The publish protocol: what software stores, and all that hardware may do meanwhile

   Tables of any size, any number of levels, leaves of one item or of a group. Nothing here knows a
   bit: a leaf is where it may lie ([home]) and what it makes of an address ([tr]: output address,
   rights, memory type, all in one). [Proofs.v] has the theorems, [Controls.v] what goes wrong when
   one rule of software is left out. The names of the steps are those of steps.list, which the
   checker of the host tests reads as well. *)

From Coq Require Import Arith Bool.

(** Tables, items, leaves and addresses are numbered. A table's number stands for its place in the
   tree and is not used again: memory that is allocated again is another table. *)
Definition table := nat.
Definition slot := nat.
Definition leaf := nat.
Definition va := nat.
Definition out := nat.

(** ** What does not change: who serves what *)
Record geometry := {
  root : table;
  tab : slot -> table;                 (* the table that the item is in *)
  up : table -> slot;                  (* the item that may point to the table *)
  depth : table -> nat;                (* 0: the top *)
  serves : slot -> va -> Prop;         (* walks for this address read this item *)
  home : leaf -> slot -> Prop;         (* the items that the leaf takes *)
  tr : leaf -> va -> out;              (* what it translates to *)
  spec : va -> out;                    (* what was promised when the address was mapped *)

  top_depth : forall t, depth t = 0 <-> t = root;
  up_depth : forall t, t <> root -> depth t = S (depth (tab (up t)));
  up_serves : forall s v, tab s <> root -> serves s v -> serves (up (tab s)) v;
  down_serves : forall t v, t <> root -> serves (up t) v -> exists s, tab s = t /\ serves s v;
  one_item : forall s s' v, tab s = tab s' -> serves s v -> serves s' v -> s = s';
  some_va : forall s, exists v, serves s v;
  home_tab : forall l s s', home l s -> home l s' -> tab s = tab s';
}.

Section System.
Variable G : geometry.

(** The addresses of a leaf and of a table. *)
Definition cov (l : leaf) (v : va) := exists s, home G l s /\ serves G s v.
Definition dom (t : table) (v : va) := exists s, tab G s = t /\ serves G s v.

(** ** What changes *)
Inductive kind := Empty | Leaf (l : leaf) | Tab (t : table).

(** [Fresh]: allocated, linked to nothing. [Gone]: unlinked, a flush is due. [Old]: a leaf has taken
   its place, it is as it was, a flush is due. [Kept]: flushed, its D is still to be looked at.
   [Safe]: nothing leads there and nothing in it matters. *)
Inductive status := Fresh | Live | Gone | Old | Kept | Safe | Freed.

(** A split of a leaf. [Open]: its items are being replaced. [Flushed]: it was flushed at its old
   size, and D is being folded. The flag: software has seen a D that may be meant for all of it. *)
Inductive split := No | Open (late : bool) | Flushed (late : bool).

(** What hardware holds. [Walk v t]: a walk for [v] has got to [t], now or when it was cached.
   [Trans l s d]: the leaf [l], read from [s], usable for all addresses of [l]; [d]: known to be
   dirty, so that a write does not look at the item again. *)
Inductive held := Walk (v : va) (t : table) | Trans (l : leaf) (s : slot) (d : bool).

Record state := {
  what : slot -> kind;                 (* the item, but for D *)
  dirty : slot -> bool;                (* its D; hardware may set it in an item of any kind *)
  stat : table -> status;
  splits : leaf -> split;
  joins : leaf -> bool;                (* the leaf is being put in the place of what its items are *)
  cache : held -> Prop;
  wrote : va -> Prop;                  (* a device wrote there *)
  mapped : va -> Prop;                 (* promised to translate *)
  hole : va -> Prop;                   (* promised not to *)
  cleared : leaf -> Prop;              (* leaves that unmap has removed *)
}.

Definition set {A} (f : nat -> A) (n : nat) (a : A) : nat -> A :=
  fun m => if Nat.eq_dec m n then a else f m.

Definition is_split (p : split) := p <> No.

(** Tables that translate: new walks get there, or old ones. Items that hardware may read. *)
Definition in_use (x : state) (t : table) := stat x t = Live \/ stat x t = Old.
Definition hot (x : state) (s : slot) := in_use x (tab G s) \/ stat x (tab G s) = Gone.

(** D of any item of a group counts for the leaf. *)
Definition marked (x : state) (l : leaf) := exists s, home G l s /\ what x s = Leaf l /\ dirty x s = true.
Definition whole (x : state) (l : leaf) := forall s, home G l s -> what x s = Leaf l.

(** No split and no join is under way, and no table that a leaf has replaced is left to be flushed or
   looked at. *)
Definition quiet (x : state) := (forall l, splits x l = No) /\ (forall l, joins x l = false) /\
  forall t, stat x t <> Old /\ stat x t <> Kept.

(** Every leaf that serves an address of [l] is dirty. *)
Definition all_marked (x : state) (l : leaf) := forall s l', stat x (tab G s) = Live -> what x s = Leaf l' ->
  (exists v, serves G s v /\ cov l v) -> marked x l'.

(** A subtree that nobody can reach, of the tables [T], the first of them [t], complete: it
   translates as [l] does. *)
Record built (x : state) (T : table -> bool) (t : table) (l : leaf) : Prop := {
  b_fresh : forall u, T u = true -> stat x u = Fresh;
  b_up : forall u, T u = true -> u <> root G /\ (u = t \/ T (tab G (up G u)) = true /\ what x (up G u) = Tab u);
  b_item : forall s, T (tab G s) = true -> match what x s with
    | Empty => False
    | Leaf l' => home G l' s /\ whole x l' /\ splits x l' = No /\ ~ cleared x l' /\
                 (forall v, cov l' v -> cov l v /\ tr G l' v = tr G l v)
    | Tab u => T u = true /\ up G u = s
    end;
}.

(** Every address of [l] is translated now, and as [l] does. *)
Definition agree (x : state) (l : leaf) := forall v, cov l v -> exists s l',
  stat x (tab G s) = Live /\ serves G s v /\ what x s = Leaf l' /\ tr G l' v = tr G l v.

(** The tables [T] are all that is below the item [s], the first of them [t]; nothing in them is
   being split or joined. *)
Record below (x : state) (T : table -> bool) (t : table) (s : slot) : Prop := {
  o_first : T t = true;
  o_up : forall u, T u = true -> stat x u = Live /\ u <> root G /\ (u = t \/ T (tab G (up G u)) = true);
  o_item : forall s' u, T (tab G s') = true -> what x s' = Tab u -> T u = true;
  o_split : forall l s', T (tab G s') = true -> home G l s' -> splits x l = No /\ joins x l = false;
}.

(** ** Invalidation. Assumption F1: what lies in the range, whole, is dropped, and walks in it are
   over. What only overlaps the range may stay: a command for a piece need not drop a larger
   translation. *)
Record flushes (R : va -> Prop) (c c' : held -> Prop) : Prop := {
  f_less : forall h, c' h -> c h;
  f_walk : forall v t, c' (Walk v t) -> ~ R v;
  f_trans : forall l s d, c' (Trans l s d) -> ~ forall v, cov l v -> R v;
}.

(** The rules that software keeps; [Controls.v] turns them off one by one. *)
Record rules := {
  flush_old : bool;                    (* the old leaf is flushed at its old size before the split ends *)
  fold : bool;                         (* a D that may be meant for all of the old leaf is folded *)
  compare : bool;                      (* an item is replaced by compare-exchange *)
  build_first : bool;                  (* what is published is complete *)
  flush_table : bool;                  (* an unlinked table is freed after a flush *)
  join_same : bool;                    (* a join makes a leaf of what translates as that leaf does *)
  compare_up : bool;                   (* an item of a smaller leaf is replaced by compare-exchange *)
  join_whole : bool;                   (* a join does not end before each item of the leaf is replaced *)
  flush_joined : bool;                 (* a table that a leaf has replaced is flushed before it is looked at or freed *)
  carry : bool;                        (* a D that is found there is carried to the leaf *)
}.
Variable r : rules.
Definition ask (rule : bool) (P : Prop) := rule = true -> P.

(** [x] but for some fields. *)
Definition with_item x s k d := {| what := set (what x) s k; dirty := set (dirty x) s d; stat := stat x;
  splits := splits x; joins := joins x; cache := cache x; wrote := wrote x; mapped := mapped x; hole := hole x;
  cleared := cleared x |}.
Definition with_dirty x s d := {| what := what x; dirty := set (dirty x) s d; stat := stat x;
  splits := splits x; joins := joins x; cache := cache x; wrote := wrote x; mapped := mapped x; hole := hole x;
  cleared := cleared x |}.
Definition with_stat x f := {| what := what x; dirty := dirty x; stat := f; splits := splits x;
  joins := joins x; cache := cache x; wrote := wrote x; mapped := mapped x; hole := hole x;
  cleared := cleared x |}.
Definition with_split x l p := {| what := what x; dirty := dirty x; stat := stat x;
  splits := set (splits x) l p; joins := joins x; cache := cache x; wrote := wrote x; mapped := mapped x;
  hole := hole x; cleared := cleared x |}.
Definition with_join x l b := {| what := what x; dirty := dirty x; stat := stat x; splits := splits x;
  joins := set (joins x) l b; cache := cache x; wrote := wrote x; mapped := mapped x; hole := hole x;
  cleared := cleared x |}.
Definition with_cache x c := {| what := what x; dirty := dirty x; stat := stat x; splits := splits x;
  joins := joins x; cache := c; wrote := wrote x; mapped := mapped x; hole := hole x; cleared := cleared x |}.
Definition with_wrote x v := {| what := what x; dirty := dirty x; stat := stat x; splits := splits x;
  joins := joins x; cache := cache x; wrote := fun u => wrote x u \/ u = v; mapped := mapped x; hole := hole x;
  cleared := cleared x |}.
Definition with_ranges x m h := {| what := what x; dirty := dirty x; stat := stat x; splits := splits x;
  joins := joins x; cache := cache x; wrote := wrote x; mapped := m; hole := h; cleared := cleared x |}.
Definition with_cleared x l := {| what := what x; dirty := dirty x; stat := stat x; splits := splits x;
  joins := joins x; cache := cache x; wrote := wrote x; mapped := mapped x; hole := hole x;
  cleared := fun l' => cleared x l' \/ l' = l |}.
Definition with_held x h := with_cache x (fun h' => cache x h' \/ h' = h).

(** The split of [l] is under way, or begins: all of it is mapped, the caller's lock is over all of
   it, so no other leaf around [s] is being split, and none is being joined. *)
Definition in_split x l s b := home G l s /\ (splits x l = Open b \/ splits x l = No /\ b = false) /\ ~ cleared x l /\
  (forall v, cov l v -> mapped x v) /\ (forall l', is_split (splits x l') -> home G l' s -> l' = l) /\
  (forall l', joins x l' = true -> ~ home G l' s).

(** The same of a join, which makes the leaf [l]. *)
Definition in_join x l s := home G l s /\ (forall v, cov l v -> mapped x v) /\
  (forall l', is_split (splits x l') -> ~ home G l' s) /\ (forall l', joins x l' = true -> home G l' s -> l' = l).

(** ** The steps *)
Inductive step (x : state) : state -> Prop :=

(** *** Software: the stores of a split *)

(** Anything goes in a table that nobody can reach. *)
| Init s k d : stat x (tab G s) = Fresh -> step x (with_item x s k d)

(** An item of a leaf becomes a table item, its subtree complete, if it still is what was read. *)
| Subdivide s l d b t T :
    what x s = Leaf l -> ask (compare r) (dirty x s = d) -> stat x (tab G s) = Live -> in_split x l s b ->
    up G t = s -> T t = true -> ask (build_first r) (built x T t l) ->
    step x (with_split (with_stat (with_item x s (Tab t) false) (fun u => if T u then Live else stat x u)) l (Open (b || d)))

(** An item of a group becomes one of a smaller leaf of the same table; D stays. *)
| Demote s l d b l' d' :
    what x s = Leaf l -> ask (compare r) (dirty x s = d) -> (d = true -> d' = true) -> stat x (tab G s) = Live ->
    in_split x l s b -> home G l' s -> l' <> l -> splits x l' = No -> ~ cleared x l' ->
    (forall s', home G l' s' -> home G l s') -> (forall v, cov l' v -> tr G l' v = tr G l v) ->
    step x (with_split (with_item x s (Leaf l') d') l (Open b))

(** Every item of the old leaf is replaced: it is flushed, at its old size. *)
| FlushOld l b c :
    splits x l = Open b -> (forall s, home G l s -> what x s <> Leaf l) -> flushes (cov l) (cache x) c ->
    step x (with_split (with_cache x c) l (Flushed b))

(** Fold. A D that is found may be meant for all of the old leaf. *)
| FoldLook l b : splits x l = Flushed b -> step x (with_split x l (Flushed true))

(** D may be set in a leaf at any time; it says more than it has to. *)
| FoldMark s l : what x s = Leaf l -> stat x (tab G s) = Live -> step x (with_dirty x s true)

(** D in a table item says nothing any more once it was looked at. *)
| FoldClean s t :
    what x s = Tab t -> stat x (tab G s) = Live ->
    (forall l, is_split (splits x l) -> home G l s -> splits x l = Flushed true) ->
    step x (with_dirty x s false)

(** The split is over. *)
| FoldEnd l b :
    (if flush_old r then splits x l = Flushed b
     else is_split (splits x l) /\ forall s, home G l s -> what x s <> Leaf l) ->
    ask (fold r) (b = true \/ (exists s, home G l s /\ dirty x s = true) -> all_marked x l) ->
    (forall s l', home G l s -> what x s = Leaf l' -> whole x l') ->
    step x (with_split x l No)

(** *** Software: the stores of a join *)

(** A table item becomes an item of a leaf; what is below stays as it is. Any D will do: what is below
   is looked at again. *)
| Join s t T l d :
    what x s = Tab t -> stat x (tab G s) = Live -> in_join x l s -> below x T t s -> ask (join_same r) (agree x l) ->
    step x (with_join (with_stat (with_item x s (Leaf l) d) (fun u => if T u then Old else stat x u)) l true)

(** An item of a smaller leaf becomes one of a larger leaf of the same table; D stays. *)
| Promote s l l' d d' :
    what x s = Leaf l' -> ask (compare_up r) (dirty x s = d) -> (d = true -> d' = true) -> stat x (tab G s) = Live ->
    in_join x l s -> (forall s', home G l' s' -> home G l s') -> ask (join_same r) (agree x l) ->
    step x (with_join (with_item x s (Leaf l) d') l true)

(** Every item of the new leaf is in its place. *)
| JoinEnd l : joins x l = true -> ask (join_whole r) (whole x l) -> step x (with_join x l false)

(** What an old table served is flushed. The tables below it come after it, by the same flush. *)
| FlushJoined t c :
    stat x t = Old -> (stat x (tab G (up G t)) = Old -> what x (up G t) <> Tab t) -> flushes (dom t) (cache x) c ->
    step x (with_stat (with_cache x c) (set (stat x) t Kept))

(** Then D is looked for in it, and set in the leaf that serves these addresses now. *)
| Carry t :
    stat x t = Kept \/ (flush_joined r = false /\ stat x t = Old) ->
    ask (carry r) (forall s l, tab G s = t -> what x s = Leaf l -> dirty x s = true -> all_marked x l) ->
    step x (with_stat x (set (stat x) t Safe))

(** *** Software: unmap *)

(** Under the lock; a split or a join of what is there is over. *)
| Forget (R : va -> Prop) :
    (forall l v, is_split (splits x l) \/ joins x l = true -> cov l v -> ~ R v) ->
    step x (with_ranges x (fun v => mapped x v /\ ~ R v) (hole x))

(** A leaf goes, item by item. *)
| Clear s l :
    what x s = Leaf l -> stat x (tab G s) = Live -> (forall v, cov l v -> ~ mapped x v) ->
    step x (with_cleared (with_item x s Empty false) l)

(** A table goes that has nothing left. *)
| Unlink s t :
    what x s = Tab t -> stat x (tab G s) = Live -> (forall s', tab G s' = t -> what x s' = Empty) ->
    (forall v, dom t v -> ~ mapped x v) ->
    (forall l, is_split (splits x l) -> ~ home G l s) ->
    step x (with_stat (with_item x s Empty false) (set (stat x) t Gone))

(** The flush of the range of an unmap. *)
| FlushHole (R : va -> Prop) c :
    flushes R (cache x) c -> (forall v, R v -> ~ mapped x v) ->
    (forall s l v, hot x s -> what x s = Leaf l -> cov l v -> ~ R v) ->
    (forall l v, cleared x l -> cov l v -> R v -> forall u, cov l u -> R u) ->
    step x (with_ranges (with_cache x c) (mapped x) (fun v => hole x v \/ R v))

(** The same flush, for what it says of a table. *)
| FlushTable t c :
    stat x t = Gone -> flushes (dom t) (cache x) c ->
    step x (with_stat (with_cache x c) (set (stat x) t Safe))

(** A table is freed: never reachable, or flushed, and looked at if a leaf took its place. *)
| Free t :
    stat x t = Fresh \/ stat x t = Safe \/ (flush_table r = false /\ stat x t = Gone) ->
    step x (with_stat x (set (stat x) t Freed))

(** *** Hardware *)

(** A walk, begins, and reads one item at a time, at any pace. Assumptions W1, W2. *)
| HwStart v : dom (root G) v -> step x (with_held x (Walk v (root G)))
| HwDown v t s t' :
    cache x (Walk v t) -> tab G s = t -> serves G s v -> what x s = Tab t' -> step x (with_held x (Walk v t'))
| HwFill v t s l :
    cache x (Walk v t) -> tab G s = t -> serves G s v -> what x s = Leaf l -> step x (with_held x (Trans l s (dirty x s)))

(** A write that knows the leaf to be dirty. *)
| HwWrite v l s : cache x (Trans l s true) -> cov l v -> step x (with_wrote x v)

(** A write sets D if the item still is the leaf: what compares and else walks again, or has just
   walked. Assumption D1. *)
| HwCompare v l s d :
    cache x (Trans l s d) -> cov l v -> what x s = Leaf l ->
    step x (with_held (with_wrote (with_dirty x s true) v) (Trans l s true))

(** A write sets D where the leaf was read, whatever is there now, and changes nothing else.
   Assumption D2. *)
| HwBlind v l s d :
    cache x (Trans l s d) -> cov l v ->
    step x (with_held (with_wrote (with_dirty x s true) v) (Trans l s true))

(** Anything may be dropped. *)
| HwEvict (c : held -> Prop) : (forall h, c h -> cache x h) -> step x (with_cache x c).

Inductive reachable (x0 : state) : state -> Prop :=
| Here : reachable x0 x0
| Then x y : reachable x0 x -> step x y -> reachable x0 y.

(** Where it begins: tables that are right, nothing being done, nothing cached, no D. *)
Record initial (x : state) : Prop := {
  i_root : stat x (root G) = Live;
  i_up : forall t, stat x t = Live -> t <> root G -> stat x (tab G (up G t)) = Live /\ what x (up G t) = Tab t;
  i_stat : forall t, stat x t = Live \/ stat x t = Fresh;
  i_item : forall s, stat x (tab G s) = Live -> match what x s with
    | Empty => forall v, serves G s v -> ~ mapped x v
    | Leaf l => home G l s /\ whole x l /\ forall v, cov l v -> tr G l v = spec G v /\ ~ hole x v
    | Tab t => stat x t = Live /\ up G t = s /\ t <> root G
    end;
  i_splits : forall l, splits x l = No;
  i_joins : forall l, joins x l = false;
  i_cache : forall h, ~ cache x h;
  i_wrote : forall v, ~ wrote x v;
  i_hole : forall v, hole x v -> ~ mapped x v;
  i_cleared : forall l, ~ cleared x l;
}.

End System.

Definition all_rules := {|
  flush_old := true; fold := true; compare := true; build_first := true; flush_table := true;
  join_same := true; compare_up := true; join_whole := true; flush_joined := true; carry := true |}.
