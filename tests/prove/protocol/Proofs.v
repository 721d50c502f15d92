(* SPDX-License-Identifier: GPL-2.0-only *)

(** * What the protocol keeps, in every state that can be reached *)

From Coq Require Import Arith Bool Lia.
From IoPte Require Import Protocol.

Section Proofs.
Variable G : geometry.

(** ** Tables are a tree *)

Definition right (x : state) l := forall v, cov G l v -> mapped x v -> tr G l v = spec G v.

(** A cached translation is a piece of what is in the item now, or it will be flushed. *)
Definition anchored (x : state) l s := exists L, (forall v, cov G l v -> cov G L v) /\
  (what x s = Leaf L \/ home G L s /\ (exists b, splits x L = Open b) \/ cleared x L).

(** Of what software has made and what hardware holds, but for D. *)
Record shape (x : state) : Prop := {
  v_root : stat x (root G) = Live;
  v_up : forall t, stat x t = Live -> t <> root G -> stat x (tab G (up G t)) = Live /\ what x (up G t) = Tab t;
  v_tab : forall s t, in_use x (tab G s) -> what x s = Tab t -> stat x t = stat x (tab G s) /\ up G t = s /\ t <> root G;
  v_gone : forall s, stat x (tab G s) = Gone -> what x s = Empty;
  v_leaf : forall s l, in_use x (tab G s) -> what x s = Leaf l ->
    home G l s /\ right x l /\ forall v, cov G l v -> ~ hole x v;
  v_empty : forall s v, hot G x s -> what x s = Empty -> serves G s v -> ~ mapped x v;
  v_whole : forall s l, stat x (tab G s) = Live -> what x s = Leaf l ->
    whole G x l \/ (exists L, (is_split (splits x L) \/ joins x L = true) /\ forall s', home G l s' -> home G L s') \/
    forall v, cov G l v -> ~ mapped x v;
  v_split : forall l v, is_split (splits x l) -> cov G l v -> mapped x v;
  v_home : forall l s, is_split (splits x l) -> home G l s -> stat x (tab G s) <> Fresh;
  v_join : forall l v, joins x l = true -> cov G l v -> mapped x v;
  v_place : forall l s, joins x l = true -> home G l s -> stat x (tab G s) = Live;
  v_flushed : forall l b s, splits x l = Flushed b -> stat x (tab G s) = Live -> home G l s -> what x s <> Leaf l;
  v_hole : forall v, hole x v -> ~ mapped x v;
  v_cleared : forall l v, cleared x l -> cov G l v -> ~ mapped x v;
  v_walk : forall v t, cache x (Walk v t) -> (in_use x t \/ stat x t = Gone) /\ dom G t v;
  v_trans : forall l s d, cache x (Trans l s d) -> home G l s /\ hot G x s /\ right x l /\
    (forall v, cov G l v -> ~ hole x v) /\ anchored x l s;
}.

Lemma same_table x v : shape x -> forall n t1 t2, stat x t1 = Live -> stat x t2 = Live -> dom G t1 v -> dom G t2 v ->
  depth G t1 = n -> depth G t2 = n -> t1 = t2.
Proof.
  intros I. induction n as [|n IH]; intros t1 t2 L1 L2 D1 D2 E1 E2.
  - apply top_depth in E1, E2. congruence.
  - assert (t1 <> root G) as R1 by (intros ->; rewrite (proj2 (top_depth G _) eq_refl) in E1; discriminate).
    assert (t2 <> root G) as R2 by (intros ->; rewrite (proj2 (top_depth G _) eq_refl) in E2; discriminate).
    destruct (v_up _ I _ L1 R1) as [P1 W1], (v_up _ I _ L2 R2) as [P2 W2].
    pose proof (up_depth G _ R1). pose proof (up_depth G _ R2).
    destruct D1 as (s1 & <- & D1), D2 as (s2 & <- & D2).
    apply up_serves in D1; auto. apply up_serves in D2; auto.
    assert (tab G (up G (tab G s1)) = tab G (up G (tab G s2))) as E.
    { apply IH; auto; try lia; [exists (up G (tab G s1)) | exists (up G (tab G s2))]; auto. }
    pose proof (one_item G _ _ v E D1 D2) as U. rewrite U in W1. congruence.
Qed.

Lemma above x v : shape x -> forall n t, stat x t = Live -> dom G t v -> n < depth G t ->
  exists s u, stat x (tab G s) = Live /\ serves G s v /\ depth G (tab G s) = n /\ what x s = Tab u.
Proof.
  intros I n t. remember (depth G t) as m eqn:E. revert t E.
  induction m as [|m IH]; intros t E Lt D N; [lia|].
  assert (t <> root G) as R by (intros ->; rewrite (proj2 (top_depth G _) eq_refl) in E; discriminate).
  destruct (v_up _ I _ Lt R) as [P W]. pose proof (up_depth G _ R).
  destruct D as (s & <- & D). apply up_serves in D; auto.
  destruct (Nat.eq_dec m n) as [<-|].
  - exists (up G (tab G s)), (tab G s). repeat split; auto; lia.
  - apply (IH (tab G (up G (tab G s)))); auto; try lia. exists (up G (tab G s)); auto.
Qed.

(** Each address has one leaf at most. *)
Lemma one_leaf x v s1 s2 l1 l2 : shape x -> stat x (tab G s1) = Live -> stat x (tab G s2) = Live ->
  serves G s1 v -> serves G s2 v -> what x s1 = Leaf l1 -> what x s2 = Leaf l2 -> s1 = s2.
Proof.
  intros I L1 L2 D1 D2 W1 W2.
  assert (dom G (tab G s1) v) by (exists s1; auto). assert (dom G (tab G s2) v) by (exists s2; auto).
  destruct (lt_eq_lt_dec (depth G (tab G s1)) (depth G (tab G s2))) as [[N|E]|N].
  - destruct (above x v I (depth G (tab G s1)) (tab G s2)) as (s & u & Ls & Ds & E & W); auto.
    assert (tab G s = tab G s1) by (eapply (same_table x v I); eauto; exists s; auto).
    assert (s = s1) by (eapply one_item; eauto). congruence.
  - apply (one_item G s1 s2 v); auto. eapply (same_table x v I); eauto.
  - destruct (above x v I (depth G (tab G s2)) (tab G s1)) as (s & u & Ls & Ds & E & W); auto.
    assert (tab G s = tab G s2) by (eapply (same_table x v I); eauto; exists s; auto).
    assert (s = s2) by (eapply one_item; eauto). congruence.
Qed.

(** ** Dirty bits: a write shows in the leaf that serves the address, or the fold will see to it, or
   what is still to be replaced by the same leaf is dirty, or what a leaf has replaced. *)
Definition owed_split (x : state) v := exists L b, (splits x L = Open b \/ splits x L = Flushed b) /\ cov G L v /\
  (b = true \/ exists s, home G L s /\ dirty x s = true).
Definition owed_join (x : state) v := exists L s l, joins x L = true /\ cov G L v /\ home G L s /\
  what x s = Leaf l /\ dirty x s = true.
Definition to_look_at (x : state) t := stat x t = Old \/ stat x t = Kept.
Definition owed_old (x : state) v := exists s l, to_look_at x (tab G s) /\ what x s = Leaf l /\ dirty x s = true /\ cov G l v.
Definition owed (x : state) v := owed_split x v \/ owed_join x v \/ owed_old x v.
Definition shown (x : state) v := forall s l, stat x (tab G s) = Live -> serves G s v -> what x s = Leaf l ->
  marked G x l \/ owed x v.

Record inv (x : state) : Prop := {
  v_shape : shape x;
  v_known : forall l s v, cache x (Trans l s true) -> cov G l v -> mapped x v -> shown x v;
  v_wrote : forall v, wrote x v -> mapped x v -> shown x v;
}.

Lemma mark_shows x s l v : shape x -> in_use x (tab G s) -> what x s = Leaf l -> dirty x s = true ->
  cov G l v -> mapped x v -> shown x v.
Proof.
  intros I [Ls|O] W D C M s0 l0 L0 S0 W0; [|right; right; right; exists s, l; unfold to_look_at; auto].
  destruct (v_leaf _ I _ _ (or_introl Ls) W) as [H _].
  destruct (v_whole _ I _ _ Ls W) as [Wh | [(L & P & Sub) | U]].
  - left. destruct C as (s1 & H1 & S1).
    assert (tab G s1 = tab G s) as E by (eapply home_tab; eauto).
    assert (s0 = s1) as -> by (eapply (one_leaf x v); eauto; rewrite E; auto).
    rewrite (Wh s1 H1) in W0. injection W0 as <-. exists s; auto.
  - assert (cov G L v) as CL by (destruct C as (s1 & H1 & S1); exists s1; auto). right. destruct P as [P|P].
    + left. exists L. destruct (splits x L) as [|b|b] eqn:E; [destruct P; auto| |]; exists b;
        repeat split; auto; right; exists s; auto.
    + right; left. exists L, s, l. auto 10.
  - destruct (U v C M).
Qed.

Ltac upd := unfold set in *; repeat match goal with
  | H : context[Nat.eq_dec ?a ?b] |- _ => destruct (Nat.eq_dec a b); [subst | ]
  | |- context[Nat.eq_dec ?a ?b] => destruct (Nat.eq_dec a b); [subst | ]
  end; try congruence.

(** What is owed stays so: for a join, where leaves stay leaves and D stays; for old tables, where
   these stay as they are. *)
Lemma owed_join_more x y v : (forall L, joins x L = true -> joins y L = true) ->
  (forall L s l, joins x L = true -> home G L s -> what x s = Leaf l -> dirty x s = true ->
    (exists l', what y s = Leaf l') /\ dirty y s = true) -> owed_join x v -> owed_join y v.
Proof.
  intros J K (L & s & l & P & C & H & W & D). destruct (K L s l P H W D) as [[l' W'] D']. exists L, s, l'. auto 10.
Qed.

Lemma owed_old_more x y v : (forall s, to_look_at x (tab G s) -> to_look_at y (tab G s) /\ what y s = what x s /\
    (dirty x s = true -> dirty y s = true)) -> owed_old x v -> owed_old y v.
Proof.
  intros K (s & l & St & W & D & C). destruct (K s St) as (St' & W' & D'). exists s, l. rewrite W'. auto.
Qed.

(** Items are as they were, or have more D; no table goes live, and none is forgotten that is to be
   looked at. *)
Lemma shown_more x y v : (forall s, what y s = what x s) -> (forall t, stat y t = Live -> stat x t = Live) ->
  (forall t, to_look_at x t -> to_look_at y t) -> (owed_split x v -> owed_split y v) ->
  (forall l, joins x l = true -> joins y l = true) -> (forall s, dirty x s = true -> dirty y s = true) -> shown x v -> shown y v.
Proof.
  intros W S O P J D Sh s l Ls Sv Wl. apply S in Ls. rewrite W in Wl.
  destruct (Sh s l Ls Sv Wl) as [(s1 & ? & ? & ?) | [Sp|[Jo|Ol]]].
  - left. exists s1. rewrite W. auto.
  - right; left. auto.
  - right; right; left. apply (owed_join_more x); auto. intros L s1 l1 _ _ W1 D1. rewrite W. eauto.
  - right; right; right. apply (owed_old_more x); auto.
Qed.

Lemma owed_split_more x y v : (forall l, splits y l = splits x l) -> (forall s, dirty x s = true -> dirty y s = true) ->
  owed_split x v -> owed_split y v.
Proof.
  intros P D (L & b & A & B & C). exists L, b. rewrite P. repeat split; auto.
  destruct C as [|(s1 & ? & ?)]; [|right; exists s1]; auto.
Qed.

Definition ok := step G all_rules.

Lemma hot_leaf x s l : shape x -> hot G x s -> what x s = Leaf l -> in_use x (tab G s).
Proof. intros I [|Go] W; auto. rewrite (v_gone _ I _ Go) in W. discriminate. Qed.

Lemma below_built x T t s l : built G x T t l -> up G t = s ->
  forall n s0 v, depth G (tab G s0) = n -> T (tab G s0) = true -> serves G s0 v -> serves G s v.
Proof.
  intros B <-. induction n as [|n IH]; intros s0 v E HT Sv; destruct (b_up _ _ _ _ _ B _ HT) as [R U].
  - apply top_depth in E. contradiction.
  - pose proof (up_depth G _ R). apply up_serves in Sv; auto.
    destruct U as [<-|[HT' _]]; auto. eapply IH; eauto. lia.
Qed.

(** The tables of a join: all lie deeper than the item, and every leaf below it is in one of them. *)
Lemma below_deep x T t s : shape x -> stat x (tab G s) = Live -> what x s = Tab t -> below G x T t s ->
  forall n u, depth G u = n -> T u = true -> depth G (tab G s) < n.
Proof.
  intros I Ls W B. destruct (v_tab _ I _ _ (or_introl Ls) W) as (_ & U & Rt).
  induction n as [|n IH]; intros u E HT; destruct (o_up _ _ _ _ _ B _ HT) as (Lu & R & K).
  - apply top_depth in E. contradiction.
  - pose proof (up_depth G _ R). destruct K as [-> | K]; [rewrite U in *; lia|].
    assert (depth G (tab G (up G u)) = n) as En by lia.
    pose proof (IH _ En K). lia.
Qed.

Lemma below_out x T t s : shape x -> stat x (tab G s) = Live -> what x s = Tab t -> below G x T t s -> T (tab G s) = false.
Proof.
  intros I Ls W B. destruct (T (tab G s)) eqn:E; auto. pose proof (below_deep x T t s I Ls W B _ _ eq_refl E). lia.
Qed.

Lemma below_all x T t s v : shape x -> stat x (tab G s) = Live -> what x s = Tab t -> below G x T t s -> serves G s v ->
  forall n s1, stat x (tab G s1) = Live -> serves G s1 v -> depth G (tab G s1) = S (n + depth G (tab G s)) -> T (tab G s1) = true.
Proof.
  intros I Ls W B Sv. induction n as [|n IH]; intros s1 L1 S1 E.
  - assert (tab G s1 <> root G) as R by (intros R; rewrite R, (proj2 (top_depth G _) eq_refl) in E; discriminate).
    destruct (v_up _ I _ L1 R) as [P1 W1]. pose proof (up_depth G _ R). apply up_serves in S1; auto.
    assert (tab G (up G (tab G s1)) = tab G s) as Et.
    { apply (same_table x v I (depth G (tab G s))); auto; try lia; eexists; eauto. }
    pose proof (one_item G _ _ v Et S1 Sv) as Es. rewrite Es in W1. replace (tab G s1) with t by congruence.
    apply (o_first _ _ _ _ _ B).
  - assert (tab G s1 <> root G) as R by (intros R; rewrite R, (proj2 (top_depth G _) eq_refl) in E; discriminate).
    destruct (v_up _ I _ L1 R) as [P1 W1]. pose proof (up_depth G _ R). apply up_serves in S1; auto.
    apply (o_item _ _ _ _ _ B (up G (tab G s1))); auto. apply IH; auto. lia.
Qed.

Lemma below_leaf x T t s s1 l1 v : shape x -> stat x (tab G s) = Live -> what x s = Tab t -> below G x T t s -> serves G s v ->
  stat x (tab G s1) = Live -> serves G s1 v -> what x s1 = Leaf l1 -> T (tab G s1) = true.
Proof.
  intros I Ls W B Sv L1 S1 W1.
  assert (dom G (tab G s) v) as Ds by (exists s; auto).
  destruct (lt_eq_lt_dec (depth G (tab G s1)) (depth G (tab G s))) as [[N|E]|N].
  - destruct (above x v I (depth G (tab G s1)) (tab G s)) as (s2 & u & L2 & S2 & E & W2); auto.
    assert (tab G s2 = tab G s1) by (eapply (same_table x v I); eauto; eexists; eauto).
    assert (s2 = s1) by (eapply one_item; eauto). congruence.
  - assert (tab G s1 = tab G s) by (eapply (same_table x v I); eauto; eexists; eauto).
    assert (s1 = s) by (eapply one_item; eauto). congruence.
  - apply (below_all x T t s v I Ls W B Sv (depth G (tab G s1) - S (depth G (tab G s)))); auto. lia.
Qed.

(** What a join may make translates as promised. *)
Lemma agree_right x l : shape x -> agree G x l -> right x l.
Proof.
  intros I A v C M. destruct (A v C) as (s & l' & Ls & S & W & <-).
  destruct (v_leaf _ I _ _ (or_introl Ls) W) as (H & R & _). apply R; auto. exists s; auto.
Qed.

Ltac fields I :=
  pose proof (v_up _ I) as Up; pose proof (v_tab _ I) as Tb; pose proof (v_gone _ I) as Go; pose proof (v_leaf _ I) as Lf;
  pose proof (v_empty _ I) as Em; pose proof (v_whole _ I) as Wh; pose proof (v_split _ I) as Sp;
  pose proof (v_home _ I) as Ho; pose proof (v_join _ I) as Jn; pose proof (v_place _ I) as Pl;
  pose proof (v_flushed _ I) as Fl; pose proof (v_hole _ I) as Hl;
  pose proof (v_cleared _ I) as Cl; pose proof (v_walk _ I) as Wa; pose proof (v_trans _ I) as Tr;
  pose proof (v_root _ I) as Rt; constructor; unfold hot, in_use, right, anchored in *; cbn in *; intros.

(** *** Shape: one lemma a step *)
Lemma shape_cache x c : shape x -> (forall h, c h -> cache x h) -> shape (with_cache x c).
Proof. intros I Sub. destruct I; constructor; cbn; eauto. Qed.

Lemma shape_dirty x s d : shape x -> shape (with_dirty x s d).
Proof. intros I. destruct I; constructor; cbn; auto. Qed.

Lemma shape_wrote x v : shape x -> shape (with_wrote x v).
Proof. intros I. destruct I; constructor; cbn; auto. Qed.

Lemma shape_init x s k d : shape x -> stat x (tab G s) = Fresh -> shape (with_item x s k d).
Proof.
  intros I F. fields I; auto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; [destruct H; congruence | eauto].
  - upd; eauto.
  - upd; [destruct H; congruence | eauto].
  - upd; [destruct H as [[H|H]|H]; congruence | eauto].
  - assert (what x s0 = Leaf l) as W by upd. destruct (Wh s0 l H W) as [A|[A|A]]; auto. left.
    intros s' H'. cbn. destruct (Lf s0 l (or_introl H) W) as [Hs _]. pose proof (home_tab G l s' s0 H' Hs). upd; auto.
  - eauto.
  - eauto.
  - eauto.
  - eauto.
  - upd; eauto.
  - eauto.
  - destruct (Tr l s0 d0 H) as (A & B & C & D & L & E & K). repeat split; auto. exists L. split; auto.
    destruct K as [K|K]; auto. left. upd. destruct B as [[B|B]|B]; congruence.
Qed.

Lemma shape_subdivide x s l d b t T : shape x -> what x s = Leaf l -> dirty x s = d -> stat x (tab G s) = Live ->
  in_split G x l s b -> up G t = s -> T t = true -> built G x T t l ->
  shape (with_split (with_stat (with_item x s (Tab t) false) (fun u => if T u then Live else stat x u)) l (Open (b || d))).
Proof.
  intros I W D Ls (Hs & P & NC & M & Alone & NJ) U HT B.
  assert (T (tab G s) = false) as NT.
  { destruct (T (tab G s)) eqn:E; auto. rewrite (b_fresh _ _ _ _ _ B _ E) in Ls. discriminate. }
  assert (forall s', T (tab G s') = true -> s' <> s) as NS by congruence.
  destruct (v_leaf _ I _ _ (or_introl Ls) W) as (_ & Rl & NHl).
  assert (forall l' s', home G l' s' -> T (tab G s') = true -> l' <> l) as NL.
  { intros l' s' H' HT' ->. rewrite (home_tab G l s' s H' Hs) in HT'. congruence. }
  assert (forall L, is_split (splits x L) -> is_split (set (splits x) l (Open (b || d)) L)) as Keep.
  { intros L HL. unfold set. destruct (Nat.eq_dec L l); auto. discriminate. }
  fields I; auto.
  - destruct (T (root G)); auto.
  - destruct (T t0) eqn:E.
    + destruct (b_up _ _ _ _ _ B _ E) as [R [->|[HT' W']]].
      * rewrite U, NT. split; auto. upd.
      * rewrite HT'. split; auto. specialize (NS _ HT'). upd.
    + destruct (Up t0 H H0) as [A C]. destruct (T (tab G (up G t0))); split; auto; upd.
  - destruct (T (tab G s0)) eqn:E.
    + specialize (NS _ E). pose proof (b_item _ _ _ _ _ B _ E) as BI. unfold set in H0.
      destruct (Nat.eq_dec s0 s); [congruence|]. rewrite H0 in BI. destruct BI as [HT' U'].
      rewrite HT'. destruct (b_up _ _ _ _ _ B _ HT'). auto.
    + unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|].
      * injection H0 as <-. rewrite HT. destruct (b_up _ _ _ _ _ B _ HT). auto.
      * destruct (Tb s0 t0 H H0) as (A & C & F). destruct (T t0) eqn:E0; auto.
        rewrite (b_fresh _ _ _ _ _ B _ E0) in A. destruct H; congruence.
  - destruct (T (tab G s0)) eqn:E; [discriminate|]. upd; auto.
  - assert (s0 <> s) by (intros ->; unfold set in H0; destruct (Nat.eq_dec s s); congruence).
    assert (what x s0 = Leaf l0) as W0 by upd. destruct (T (tab G s0)) eqn:E; [|apply Lf; auto].
    pose proof (b_item _ _ _ _ _ B _ E) as BI. rewrite W0 in BI. destruct BI as (A & Wl & NP & NC' & C).
    repeat split; auto.
    + intros v Cv Mv. destruct (C v Cv) as [Cl' Eq]. rewrite Eq. auto.
    + intros v Cv. destruct (C v Cv). auto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s); [discriminate|].
    destruct (T (tab G s0)) eqn:E; [|eapply Em; eauto].
    pose proof (b_item _ _ _ _ _ B _ E) as BI. rewrite H0 in BI. contradiction.
  - assert (s0 <> s) by (intros ->; unfold set in H0; destruct (Nat.eq_dec s s); congruence).
    assert (what x s0 = Leaf l0) as W0 by upd.
    destruct (T (tab G s0)) eqn:E.
    + pose proof (b_item _ _ _ _ _ B _ E) as BI. rewrite W0 in BI. destruct BI as (A & Wl & _).
      left. intros s' H'. pose proof (home_tab G l0 s' s0 H' A) as Et. rewrite <- Et in E. specialize (NS _ E). cbn. upd. auto.
    + destruct (Nat.eq_dec l0 l) as [->|].
      * right; left. exists l. split; auto. left. unfold set. destruct (Nat.eq_dec l l); [discriminate|congruence].
      * destruct (Wh s0 l0 H W0) as [A|[(L & [A|A] & C)|A]]; [left|right;left;exists L|right;left;exists L|]; auto.
        intros s' H'. specialize (A s' H'). cbn. upd.
  - upd; [apply M|eapply Sp]; eauto.
  - destruct (T (tab G s0)); [discriminate|]. unfold set in *. destruct (Nat.eq_dec l0 l) as [->|]; [rewrite (home_tab G l s0 s); auto; congruence|eauto].
  - eauto.
  - destruct (T (tab G s0)) eqn:E; auto. eauto.
  - unfold set in H. destruct (Nat.eq_dec l0 l); [discriminate|].
    destruct (T (tab G s0)) eqn:E; [|upd; eauto].
    pose proof (NS _ E). pose proof (b_item _ _ _ _ _ B _ E) as BI. intros W0.
    assert (what x s0 = Leaf l0) as W1 by upd. rewrite W1 in BI. destruct BI as (_ & _ & NP & _). congruence.
  - eauto.
  - destruct (Wa v t0 H) as [A C]. split; auto. destruct (T t0); auto.
  - destruct (Tr l0 s0 d0 H) as (A & C & E & F & L & Sub & K). split; [auto|split; [|split;[auto|split;[auto|]]]].
    + destruct (T (tab G s0)); auto.
    + exists L. split; auto. destruct K as [K|[(K & b' & K')|K]]; auto.
      * destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; left. rewrite W in K. injection K as <-.
        split; auto. exists (b || d). upd.
      * right; left. split; auto. destruct (Nat.eq_dec L l) as [->|]; [exists (b || d)|exists b']; upd.
Qed.

Lemma shape_demote x s l d b l' d' : shape x -> what x s = Leaf l -> dirty x s = d -> stat x (tab G s) = Live ->
  in_split G x l s b -> home G l' s -> l' <> l -> splits x l' = No -> ~ cleared x l' ->
  (forall s', home G l' s' -> home G l s') -> (forall v, cov G l' v -> tr G l' v = tr G l v) ->
  shape (with_split (with_item x s (Leaf l') d') l (Open b)).
Proof.
  intros I W D Ls (Hs & P & NC & M & Alone & NJ) H' NE NP NC' Sub Same.
  destruct (v_leaf _ I _ _ (or_introl Ls) W) as (_ & Rl & NHl).
  assert (forall v, cov G l' v -> cov G l v) as SubC by (intros v (s1 & A & B); exists s1; auto).
  assert (forall L, is_split (splits x L) -> is_split (set (splits x) l (Open b) L)) as Keep.
  { intros L HL. unfold set. destruct (Nat.eq_dec L l); auto. discriminate. }
  assert (is_split (set (splits x) l (Open b) l)) as Pl' by (unfold set; destruct (Nat.eq_dec l l); [discriminate|congruence]).
  fields I; auto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; eauto.
  - upd; eauto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|]; [|apply Lf; auto]. injection H0 as <-. repeat split; auto.
    intros v C Mv. rewrite Same; auto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s); [discriminate|eapply Em; eauto].
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|].
    + injection H0 as <-. right; left. exists l. auto.
    + destruct (Nat.eq_dec l0 l) as [->|]; [right; left; exists l; auto|].
      destruct (Wh s0 l0 H H0) as [A|[(L & [A|A] & C)|A]]; auto.
      * left. intros s' H''. specialize (A s' H''). cbn. upd.
      * right; left. exists L. auto.
      * right; left. exists L. auto.
  - upd; [apply M|eapply Sp]; eauto.
  - unfold set in *. destruct (Nat.eq_dec l0 l) as [->|]; [rewrite (home_tab G l s0 s); auto; congruence|eauto].
  - eauto.
  - eauto.
  - upd; eauto.
  - eauto.
  - destruct (Tr l0 s0 d0 H) as (A & C & E & F & L & SubL & K). repeat split; auto. exists L. split; auto.
    destruct K as [K|[(K & b' & K')|K]]; auto.
    + destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; left. rewrite W in K. injection K as <-.
      split; auto. exists b. upd.
    + right; left. split; auto. destruct (Nat.eq_dec L l) as [->|]; [exists b|exists b']; upd.
Qed.

(** A split goes on, with the same leaf open, or flushed and nothing left of it. *)
Lemma shape_flush x l b c : shape x -> splits x l = Open b -> (forall s, home G l s -> what x s <> Leaf l) ->
  flushes G (cov G l) (cache x) c -> shape (with_split (with_cache x c) l (Flushed b)).
Proof.
  intros I P N F. fields I; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. right; left. exists L. split; auto.
    destruct A as [A|A]; auto. left. unfold set. destruct (Nat.eq_dec L l); auto. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Sp l v); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Ho l s); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. auto.
  - apply Wa. eapply f_less; eauto.
  - destruct (Tr l0 s d) as (A & C & E & K & L & Sub & Q); [eapply f_less; eauto|]. repeat split; auto.
    exists L. split; auto. destruct Q as [Q|[(Q & b' & Q')|Q]]; auto. right; left. split; auto. exists b'. unfold set.
    destruct (Nat.eq_dec L l) as [->|]; auto. destruct (f_trans _ _ _ _ F _ _ _ H). auto.
Qed.

Lemma shape_look x l b : shape x -> splits x l = Flushed b -> shape (with_split x l (Flushed true)).
Proof.
  intros I P. fields I; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. right; left. exists L. split; auto.
    destruct A as [A|A]; auto. left. unfold set. destruct (Nat.eq_dec L l); auto. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Sp l v); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Ho l s); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; eauto.
  - destruct (Tr l0 s d H) as (A & C & E & K & L & Sub & Q). repeat split; auto.
    exists L. split; auto. destruct Q as [Q|[(Q & b' & Q')|Q]]; auto. right; left. split; auto. exists b'. upd.
Qed.

Lemma shape_end x l b : shape x -> splits x l = Flushed b ->
  (forall s l', home G l s -> what x s = Leaf l' -> whole G x l') -> shape (with_split x l No).
Proof.
  intros I P Whole. fields I; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. destruct A as [A|A]; [|right; left; exists L; auto].
    destruct (Nat.eq_dec L l) as [->|].
    + left. destruct (Lf s l0 (or_introl H) H0) as [Hs _]. apply (Whole s); auto.
    + right; left. exists L. split; auto. left. unfold set. destruct (Nat.eq_dec L l); [congruence|auto].
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [destruct H; auto|eauto].
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [destruct H; auto|eauto].
  - upd; eauto.
  - destruct (Tr l0 s d H) as (A & C & E & K & L & Sub & Q). repeat split; auto.
    exists L. split; auto. destruct Q as [Q|[(Q & b' & Q')|Q]]; auto. right; left. split; auto. exists b'. upd.
Qed.

Lemma shape_join x s t T l d : shape x -> what x s = Tab t -> stat x (tab G s) = Live -> in_join G x l s ->
  below G x T t s -> agree G x l ->
  shape (with_join (with_stat (with_item x s (Leaf l) d) (fun u => if T u then Old else stat x u)) l true).
Proof.
  intros I W Ls (Hs & M & NS & NJ) B A. pose proof (agree_right _ _ I A) as Rl.
  pose proof (below_out x T t s I Ls W B) as NT. destruct (v_tab _ I _ _ (or_introl Ls) W) as (_ & U & _).
  fields I; auto.
  - destruct (T (root G)) eqn:E; auto. destruct (o_up _ _ _ _ _ B _ E) as (_ & R & _). congruence.
  - destruct (T t0) eqn:E; [discriminate|]. destruct (Up t0 H H0) as [P Q]. split.
    + destruct (T (tab G (up G t0))) eqn:F; auto. rewrite (o_item _ _ _ _ _ B _ _ F Q) in E. discriminate.
    + unfold set. destruct (Nat.eq_dec (up G t0) s) as [F|]; auto. rewrite F, W in Q. injection Q as <-.
      rewrite (o_first _ _ _ _ _ B) in E. discriminate.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|N]; [discriminate|].
    destruct (T (tab G s0)) eqn:E.
    + destruct (o_up _ _ _ _ _ B _ E) as (L0 & _). destruct (Tb s0 t0 (or_introl L0) H0) as (_ & P & Q).
      rewrite (o_item _ _ _ _ _ B _ _ E H0). auto.
    + destruct (Tb s0 t0 H H0) as (O & P & Q). destruct (T t0) eqn:F; auto.
      destruct (o_up _ _ _ _ _ B _ F) as (_ & _ & [-> | K]); congruence.
  - destruct (T (tab G s0)); [discriminate|]. upd; auto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|N].
    + injection H0 as <-. repeat split; auto. intros v Cv HV. eapply Hl; eauto.
    + apply Lf; auto. destruct (T (tab G s0)) eqn:E; auto. left. apply (o_up _ _ _ _ _ B _ E).
  - unfold set in H0. destruct (Nat.eq_dec s0 s); [discriminate|]. apply (Em s0); auto.
    destruct (T (tab G s0)) eqn:E; auto. left; left. apply (o_up _ _ _ _ _ B _ E).
  - destruct (T (tab G s0)) eqn:E; [discriminate|]. unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|N].
    + injection H0 as <-. right; left. exists l. split; auto. right. upd.
    + destruct (Wh s0 l0 H H0) as [K|[(L & [K|K] & C)|K]]; auto.
      * left. intros s' H'. specialize (K s' H'). cbn. upd.
      * right; left. exists L. auto.
      * right; left. exists L. split; auto. right. upd.
  - eauto.
  - destruct (T (tab G s0)); [discriminate|eauto].
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; eauto.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|].
    + rewrite (home_tab G l s0 s), NT; auto.
    + destruct (T (tab G s0)) eqn:E; [|eauto]. destruct (o_split _ _ _ _ _ B _ _ E H0). congruence.
  - destruct (T (tab G s0)) eqn:E; [discriminate|]. unfold set. destruct (Nat.eq_dec s0 s) as [->|]; [|eauto].
    destruct (NS l0); auto. rewrite H. discriminate.
  - eauto.
  - destruct (Wa v t0 H). split; auto. destruct (T t0); auto.
  - destruct (Tr l0 s0 d0 H) as (P & C & E & K & L & Sub & Q). split; [auto|split; [|split; [auto|split; [auto|]]]].
    + destruct (T (tab G s0)); auto.
    + exists L. split; auto. destruct Q as [Q|Q]; auto. left. upd.
Qed.

Lemma shape_promote x s l l' d' : shape x -> what x s = Leaf l' -> stat x (tab G s) = Live -> in_join G x l s ->
  (forall s', home G l' s' -> home G l s') -> agree G x l -> shape (with_join (with_item x s (Leaf l) d') l true).
Proof.
  intros I W Ls (Hs & M & NS & NJ) Sub A. pose proof (agree_right _ _ I A) as Rl.
  assert (forall v, cov G l' v -> cov G l v) as SubC by (intros v (s1 & P & Q); exists s1; auto).
  fields I; auto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; eauto.
  - upd; eauto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|N]; [|apply Lf; auto].
    injection H0 as <-. repeat split; auto. intros v Cv HV. eapply Hl; eauto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s); [discriminate|eapply Em; eauto].
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|N].
    + injection H0 as <-. right; left. exists l. split; auto. right. upd.
    + destruct (Wh s0 l0 H H0) as [K|[(L & [K|K] & C)|K]]; auto.
      * destruct (Nat.eq_dec l0 l') as [->|].
        -- right; left. exists l. split; auto. right. upd.
        -- left. intros s' H'. specialize (K s' H'). cbn. upd.
      * right; left. exists L. auto.
      * right; left. exists L. split; auto. right. upd.
  - eauto.
  - eauto.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; eauto.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. rewrite (home_tab G l s0 s); auto.
  - unfold set. destruct (Nat.eq_dec s0 s) as [->|]; [|eauto]. destruct (NS l0); auto. rewrite H. discriminate.
  - eauto.
  - destruct (Tr l0 s0 d H) as (P & C & E & K & L & SubL & Q). repeat split; auto.
    destruct (Nat.eq_dec s0 s) as [->|]; [|exists L; split; auto; destruct Q as [Q|Q]; auto; left; upd].
    destruct Q as [Q|Q]; [|exists L; auto]. rewrite W in Q. injection Q as <-. exists l. split; auto. left. upd.
Qed.

Lemma shape_join_end x l : shape x -> whole G x l -> shape (with_join x l false).
Proof.
  intros I Whole. fields I; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. destruct A as [A|A]; [right; left; exists L; auto|].
    destruct (Nat.eq_dec L l) as [->|].
    + left. destruct (Lf s l0 (or_introl H) H0) as [Hs _]. pose proof (Whole s (C s Hs)) as E.
      rewrite H0 in E. injection E as ->. auto.
    + right; left. exists L. split; auto. right. upd.
  - upd; eauto.
  - upd; eauto.
Qed.

Lemma shape_forget x R : shape x -> (forall l v, is_split (splits x l) \/ joins x l = true -> cov G l v -> ~ R v) ->
  shape (with_ranges x (fun v => mapped x v /\ ~ R v) (hole x)).
Proof.
  intros I N. fields I; auto; eauto.
  - destruct (Lf s l H H0) as (A & B & C). repeat split; auto. intros v Cv [Mv _]. auto.
  - intros [Mv _]. eapply Em; eauto.
  - destruct (Wh s l H H0) as [A|[A|A]]; auto. right; right. intros v C [Mv _]. eapply A; eauto.
  - intros [Mv _]. eapply Hl; eauto.
  - intros [Mv _]. eapply Cl; eauto.
  - destruct (Tr l s d H) as (A & B & C & D & E). repeat split; auto; apply A || auto. intros v Cv [Mv _]. auto.
Qed.

Lemma shape_clear x s l : shape x -> what x s = Leaf l -> stat x (tab G s) = Live ->
  (forall v, cov G l v -> ~ mapped x v) -> shape (with_cleared (with_item x s Empty false) l).
Proof.
  intros I W Ls N. destruct (v_leaf _ I _ _ (or_introl Ls) W) as (Hs & _).
  fields I; auto; eauto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; eauto.
  - upd; eauto.
  - upd; eauto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|]; [|eapply Em; eauto]. apply N. exists s; auto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|]; [discriminate|].
    destruct (Nat.eq_dec l0 l) as [->|]; auto. destruct (Wh s0 l0 H H0) as [A|[A|A]]; auto.
    left. intros s' H'. specialize (A s' H'). cbn. upd.
  - upd; eauto.
  - destruct H as [H| ->]; eauto.
  - destruct (Tr l0 s0 d H) as (A & B & C & D & L & Sub & E). repeat split; auto. exists L. split; auto.
    destruct E as [E|[E|E]]; auto. destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; right; right. congruence.
Qed.

Lemma shape_unlink x s t : shape x -> what x s = Tab t -> stat x (tab G s) = Live ->
  (forall s', tab G s' = t -> what x s' = Empty) -> (forall v, dom G t v -> ~ mapped x v) ->
  shape (with_stat (with_item x s Empty false) (set (stat x) t Gone)).
Proof.
  intros I W Ls E N. destruct (v_tab _ I _ _ (or_introl Ls) W) as (Lt & U & R). rewrite Ls in Lt.
  assert (tab G s <> t) as NS. { pose proof (up_depth G _ R). rewrite U in *. intros <-. lia. }
  fields I; auto.
  - upd.
  - unfold set in H. destruct (Nat.eq_dec t0 t); [discriminate|]. destruct (Up t0 H H0) as [A B]. split.
    + unfold set. destruct (Nat.eq_dec (tab G (up G t0)) t); auto. rewrite E in B; auto. discriminate.
    + upd.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [destruct H; discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|].
    destruct (Tb s0 t0 H H0) as (A & B & C). destruct (Nat.eq_dec t0 t); [congruence|auto].
  - upd; auto.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [destruct H; discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|auto].
  - unfold set in *. destruct (Nat.eq_dec s0 s) as [->|].
    + apply N. destruct (down_serves G t v R) as (s1 & A & B); [congruence|]. exists s1; auto.
    + apply (Em s0); auto. destruct (Nat.eq_dec (tab G s0) t); auto. left; left. congruence.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|].
    destruct (Wh s0 l H H0) as [A|[A|A]]; auto. left. intros s' H'. specialize (A s' H'). cbn. upd.
  - eauto.
  - unfold set. destruct (Nat.eq_dec (tab G s0) t); [discriminate|eauto].
  - eauto.
  - unfold set. destruct (Nat.eq_dec (tab G s0) t) as [F|]; [|eauto]. destruct (some_va G s0) as [v Sv].
    destruct (Em s0 v); auto; [rewrite (Pl l s0); auto|]. apply (Jn l); auto. exists s0; auto.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|eauto].
  - eauto.
  - destruct (Wa v t0 H) as [A B]. split; auto. upd; auto.
  - destruct (Tr l s0 d H) as (A & B & C & D & L & Sub & K). repeat split; auto.
    + upd; auto.
    + exists L. split; auto. destruct K as [K|K]; auto. left. upd.
Qed.

Lemma shape_hole x R c : shape x -> flushes G R (cache x) c -> (forall v, R v -> ~ mapped x v) ->
  (forall s l v, hot G x s -> what x s = Leaf l -> cov G l v -> ~ R v) ->
  (forall l v, cleared x l -> cov G l v -> R v -> forall u, cov G l u -> R u) ->
  shape (with_ranges (with_cache x c) (mapped x) (fun v => hole x v \/ R v)).
Proof.
  intros I F N NL NC. fields I; auto; eauto.
  - destruct (Lf s l H H0) as (A & B & C). repeat split; auto. intros v Cv [|]; [eapply C|eapply NL]; eauto.
  - destruct H as [H|H]; auto.
  - apply Wa. eapply f_less; eauto.
  - destruct (Tr l s d) as (A & B & C & D & L & Sub & K); [eapply f_less; eauto|].
    split; [auto|split; [auto|split; [auto|split; [|exists L; auto]]]].
    intros v Cv [|HR]; [eapply D; eauto|]. destruct K as [K|[(K & b & K')|K]].
    + eapply NL; eauto.
    + eapply N; eauto. apply (v_split _ I L v); auto. rewrite K'. discriminate.
    + apply (f_trans _ _ _ _ F _ _ _ H). eauto.
Qed.

(** A table leaves what hardware may read, or is farther away. *)
Lemma shape_leave x t n c : shape x -> stat x t <> Live -> n = Kept \/ n = Safe \/ n = Freed ->
  (stat x t = Old -> stat x (tab G (up G t)) = Old -> what x (up G t) <> Tab t) -> (forall h, c h -> cache x h) ->
  (forall v, ~ c (Walk v t)) -> (forall l s d, c (Trans l s d) -> tab G s <> t) ->
  shape (with_stat (with_cache x c) (set (stat x) t n)).
Proof.
  intros I NL Nn Top Sub NW NT.
  assert (forall u k, set (stat x) t n u = k -> k = Live \/ k = Old \/ k = Gone \/ k = Fresh -> stat x u = k /\ u <> t) as Was.
  { intros u k. unfold set. destruct (Nat.eq_dec u t) as [->|]; auto. intros -> K.
    destruct Nn as [-> | [-> | ->]], K as [K|[K|[K|K]]]; discriminate. }
  assert (forall u, set (stat x) t n u = Live -> stat x u = Live /\ u <> t) as Lv by auto.
  assert (forall u, set (stat x) t n u = Old -> stat x u = Old /\ u <> t) as Od by auto.
  assert (forall u, set (stat x) t n u = Gone -> stat x u = Gone /\ u <> t) as Gn by auto.
  assert (forall u, set (stat x) t n u = Fresh -> stat x u = Fresh) as Fr by (intros u E; apply Was in E; tauto).
  assert (forall u, u <> t -> set (stat x) t n u = stat x u) as Ne by (intros u; upd).
  assert (forall u, set (stat x) t n u = Live \/ set (stat x) t n u = Old -> (stat x u = Live \/ stat x u = Old) /\ u <> t) as Us.
  { intros u [A|A]; [destruct (Lv _ A)|destruct (Od _ A)]; auto. }
  fields I.
  - rewrite Ne; auto. congruence.
  - destruct (Lv _ H) as [H1 _]. destruct (Up t0 H1 H0). split; auto. rewrite Ne; auto. congruence.
  - destruct (Us _ H) as [H1 H2]. destruct (Tb s t0 H1 H0) as (A & B & C). split; auto. rewrite (Ne (tab G s)), Ne; auto.
    intros ->. rewrite B in *. destruct H1; [congruence|]. apply Top; congruence.
  - destruct (Gn _ H). auto.
  - destruct (Us _ H). auto.
  - apply (Em s); auto. destruct H as [H|H]; [destruct (Us _ H)|destruct (Gn _ H)]; auto.
  - destruct (Lv _ H) as [H1 _]. exact (Wh s l H1 H0).
  - eauto.
  - intros E. apply (Ho l s H H0). auto.
  - eauto.
  - rewrite Ne; eauto. intros E. pose proof (Pl l s H H0). congruence.
  - destruct (Lv _ H0). eauto.
  - auto.
  - eauto.
  - destruct (Wa v t0) as [A B]; auto. split; auto. rewrite Ne; auto. intros ->. eapply NW; eauto.
  - destruct (Tr l s d) as (A & B & C); auto. split; auto. rewrite Ne; eauto.
Qed.

Lemma shape_flushed x t n c : shape x -> stat x t = Gone \/ stat x t = Old -> n = Kept \/ n = Safe ->
  (stat x t = Old -> stat x (tab G (up G t)) = Old -> what x (up G t) <> Tab t) -> flushes G (dom G t) (cache x) c ->
  shape (with_stat (with_cache x c) (set (stat x) t n)).
Proof.
  intros I St Nn Top F. apply shape_leave; auto.
  - destruct St; congruence.
  - destruct Nn; auto.
  - apply f_less with (1 := F).
  - intros v C. destruct (v_walk _ I v t) as [_ D]; [eapply f_less; eauto|]. eapply f_walk; eauto.
  - intros l s d C <-. destruct (v_trans _ I l s d) as (A & _); [eapply f_less; eauto|].
    apply (f_trans _ _ _ _ F _ _ _ C). intros v (s1 & H1 & S1). exists s1. split; auto. eapply home_tab; eauto.
Qed.

(** A table that hardware cannot reach. *)
Lemma shape_away x t n : shape x -> stat x t = Fresh \/ stat x t = Kept \/ stat x t = Safe -> n = Safe \/ n = Freed ->
  shape (with_stat x (set (stat x) t n)).
Proof.
  intros I St Nn. apply (shape_leave x t n (cache x)); auto; try (destruct St as [-> | [-> | ->]]; discriminate).
  - intros v C. destruct (v_walk _ I v t C) as [[[A|A]|A] _]; destruct St as [B|[B|B]]; congruence.
  - intros l s d C <-. destruct (v_trans _ I l s d C) as (_ & [[A|A]|A] & _); destruct St as [B|[B|B]]; congruence.
Qed.

Lemma shape_held x h : shape x -> (match h with
  | Walk v t => in_use x t /\ dom G t v
  | Trans l s d => in_use x (tab G s) /\ what x s = Leaf l \/ exists d', cache x (Trans l s d') end) -> shape (with_held x h).
Proof.
  intros I N. fields I; auto; eauto.
  - destruct H as [H| <-]; auto. destruct N. auto.
  - destruct H as [H| <-]; [apply (Tr l s d); auto|]. destruct N as [[A B]|[d' N]]; [|apply (Tr l s d'); auto].
    destruct (Lf s l A B) as (? & ? & ?). repeat split; auto. exists l. auto.
Qed.

(** *** All of it *)
Lemma shown_same x y v : (forall s, what y s = what x s) -> (forall t, stat y t = stat x t) ->
  (forall l, splits y l = splits x l) -> (forall l, joins y l = joins x l) ->
  (forall s, dirty x s = true -> dirty y s = true) -> shown x v -> shown y v.
Proof.
  intros W S P J D. apply shown_more; auto.
  - intros t. rewrite S. auto.
  - intros t [|]; unfold to_look_at; rewrite S; auto.
  - apply owed_split_more; auto.
  - intros l. rewrite J. auto.
Qed.

(** A split that goes on keeps what it owes. *)
Lemma owed_split_on x l p v c : (splits x l = Open c \/ splits x l = Flushed c) -> (p = Flushed c \/ p = Flushed true) ->
  owed_split x v -> owed_split (with_split x l p) v.
Proof.
  intros P Q (L & b & A & C & D). destruct (Nat.eq_dec L l) as [->|N].
  - assert (b = c) as -> by (destruct P, A; congruence).
    destruct Q as [-> | ->]; [exists l, c|exists l, true]; cbn; split; auto; right; upd.
  - exists L, b. cbn. unfold set. destruct (Nat.eq_dec L l); [congruence|auto].
Qed.

Lemma keep x y : inv x -> ok x y -> inv y.
Proof.
  intros Inv St. pose proof (v_shape _ Inv) as I. pose proof (v_known _ Inv) as Kn. pose proof (v_wrote _ Inv) as Wr.
  destruct St.
  - (* Init *) assert (forall v, mapped x v -> shown x v -> shown (with_item x s k d) v) as Ke.
    { intros v M Sh s0 l L0 S0 W0. cbn in *. assert (what x s0 = Leaf l) as W1 by upd.
      destruct (v_leaf _ I _ _ (or_introl L0) W1) as [H0 _].
      destruct (Sh s0 l L0 S0 W1) as [(s1 & A & B & C)|[(L & b & A & B & C)|[O|O]]].
      - left. exists s1. pose proof (home_tab G l s1 s0 A H0). cbn. assert (s1 <> s) by congruence. repeat split; auto; upd.
      - right; left. exists L, b. repeat split; auto. destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        pose proof (v_home _ I _ _ P C). cbn. assert (s1 <> s) by congruence. upd.
      - right; right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 P A B C.
        pose proof (v_place _ I _ _ P A). assert (s1 <> s) by congruence. split; [exists l1|]; upd.
      - right; right; right. apply (owed_old_more x); auto. cbn. intros s1 K. assert (s1 <> s) by (destruct K; congruence).
        repeat split; auto; upd. }
    constructor; [apply shape_init; auto| |]; cbn; intros; apply Ke; eauto.
  - (* Subdivide *) unfold ask in *. cbn in *. specialize (H0 eq_refl). specialize (H5 eq_refl).
    destruct H2 as (Hs & P & NC & M & Alone & NJ).
    pose (y := with_split (with_stat (with_item x s (Tab t) false) (fun u => if T u then Live else stat x u)) l (Open (b || d))).
    assert (splits y l = Open (b || d)) as Pl by (cbn; upd).
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v [(L & b' & A & B & C)|[O|O]].
      - left. assert (is_split (splits x L)) as PL by (destruct A as [A|A]; rewrite A; discriminate).
        destruct (Nat.eq_dec L l) as [->|NE].
        + exists l, (b || d). split; auto. split; auto.
          destruct C as [->|(s1 & C & D)].
          * left. assert (b = true) as -> by (destruct P as [P|[P _]], A as [A|A]; congruence). reflexivity.
          * destruct (Nat.eq_dec s1 s) as [->|]; [left; rewrite <- H0, D; apply orb_true_r|].
            right. exists s1. split; auto. cbn. upd.
        + exists L, b'. cbn. split; [|split; auto].
          * unfold set. destruct (Nat.eq_dec L l); auto. congruence.
          * destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
            assert (s1 <> s) by (intros ->; apply NE; auto). upd.
      - right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 PL A B C.
        assert (s1 <> s) by (intros ->; eapply NJ; eauto). split; [exists l1|]; upd.
      - right; right. apply (owed_old_more x); auto. unfold to_look_at. cbn. intros s1 K.
        assert (s1 <> s) by (destruct K; congruence). split; [|split; upd; auto].
        destruct (T (tab G s1)) eqn:E; auto. rewrite (b_fresh _ _ _ _ _ H5 _ E) in K. destruct K; discriminate. }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd.
      assert (forall s1, home G l s1 -> dirty x s1 = true -> cov G l v -> owed y v) as Late.
      { intros s1 A D C. left. exists l, (b || d). split; auto. split; auto.
        destruct (Nat.eq_dec s1 s) as [->|]; [left; rewrite <- H0, D; apply orb_true_r|].
        right. exists s1. split; auto. cbn. upd. }
      destruct (T (tab G s0)) eqn:E.
      - assert (serves G s v) as Sv by (eapply (below_built x T t s l); eauto).
        destruct (Sh s l H1 Sv H) as [(s1 & A & B & C)|O]; auto. right. apply (Late s1); auto. exists s; auto.
      - destruct (v_leaf _ I _ _ (or_introl L0) W1) as [H00 _].
        destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|O]; auto.
        destruct (Nat.eq_dec s1 s) as [->|].
        + right. assert (l0 = l) as -> by congruence. apply (Late s); auto. exists s0; auto.
        + left. exists s1. cbn. repeat split; auto; upd. }
    constructor; [eapply shape_subdivide; eauto; repeat split; auto| |]; intros; apply Ke; eauto.
  - (* Demote *) unfold ask in *. cbn in *. specialize (H0 eq_refl). pose proof H3 as IS.
    destruct H3 as (Hs & P & NC & M & Alone & NJ).
    pose (y := with_split (with_item x s (Leaf l') d') l (Open b)).
    assert (splits y l = Open b) as Pl by (cbn; upd).
    assert (forall s1, dirty x s1 = true -> dirty y s1 = true) as Dy.
    { intros s1 D. cbn. upd. apply H1. congruence. }
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v [(L & b' & A & B & C)|[O|O]].
      - left. destruct (Nat.eq_dec L l) as [->|NE].
        + exists l, b. split; auto. split; auto. destruct C as [->|(s1 & C & D)]; [|right; exists s1; auto].
          left. destruct P as [P|[P _]], A as [A|A]; congruence.
        + exists L, b'. cbn. split; [unfold set; destruct (Nat.eq_dec L l); auto; congruence|]. split; auto.
          destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto. exact (Dy s1 D).
      - right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 PL A B C.
        assert (s1 <> s) by (intros ->; eapply NJ; eauto). split; [exists l1|]; upd.
      - right; right. apply (owed_old_more x); auto. cbn. intros s1 K.
        assert (s1 <> s) by (destruct K; congruence). split; auto. split; [upd|apply Dy]. }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0.
      assert (forall s1, home G l s1 -> dirty x s1 = true -> cov G l v -> owed y v) as Late.
      { intros s1 A D C. left. exists l, b. split; auto. split; auto. right. exists s1. split; auto. }
      destruct (Nat.eq_dec s0 s) as [->|N0].
      - destruct (Sh s l L0 S0 H) as [(s1 & A & B & C)|O]; auto. right. apply (Late s1); auto. exists s; auto.
      - assert (what x s0 = Leaf l0) as W1 by (cbn in W0; upd). destruct (v_leaf _ I _ _ (or_introl L0) W1) as [H00 _].
        destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|O]; auto.
        destruct (Nat.eq_dec s1 s) as [->|].
        + right. assert (l0 = l) as -> by congruence. apply (Late s); auto. exists s0; auto.
        + left. exists s1. split; auto. split; auto. cbn. upd. }
    constructor; [eapply shape_demote; eauto| |]; intros; apply Ke; eauto.
  - (* FlushOld *) assert (forall v, shown x v -> shown (with_split (with_cache x c) l (Flushed b)) v) as Ke
      by (intros v; apply shown_more; auto; apply (owed_split_on x l _ v b); auto).
    constructor; [apply shape_flush; auto| |]; cbn; intros; apply Ke; eauto. eapply Kn; eauto. eapply f_less; eauto.
  - (* FoldLook *) assert (forall v, shown x v -> shown (with_split x l (Flushed true)) v) as Ke
      by (intros v; apply shown_more; auto; apply (owed_split_on x l _ v b); auto).
    constructor; [eapply shape_look; eauto| |]; cbn; intros; apply Ke; eauto.
  - (* FoldMark *) constructor; [apply shape_dirty; auto| |]; cbn; intros; eapply (shown_same x); eauto; cbn; intros; upd.
  - (* FoldClean *) assert (forall v, shown x v -> shown (with_dirty x s false) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *. destruct (Sh s0 l0 L0 S0 W0) as [(s1 & A & B & C)|[(L & b & A & B & C)|[O|O]]].
      - left. exists s1. cbn. repeat split; auto. upd.
      - right; left. exists L, b. cbn. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        destruct (Nat.eq_dec s1 s) as [->|]; [left|right; exists s1; split; auto; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        specialize (H1 L P C). destruct A; congruence.
      - right; right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 P A B C. split; [exists l1; auto|upd].
      - right; right; right. apply (owed_old_more x); auto. cbn. intros s1 K. assert (s1 <> s) by (destruct K; congruence).
        repeat split; auto. upd. }
    constructor; [apply shape_dirty; auto| |]; cbn; intros; apply Ke; eauto.
  - (* FoldEnd *) cbn in *. unfold ask in H0. specialize (H0 eq_refl).
    assert (forall v, shown x v -> shown (with_split x l No) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *.
      destruct (Sh s0 l0 L0 S0 W0) as [A|[(L & b' & A & B & C)|O]]; [left; exact A| |right; right; exact O].
      destruct (Nat.eq_dec L l) as [->|].
      - left. assert (b' = b) as -> by (destruct A; congruence). apply (H0 C s0 l0); auto. exists v; auto.
      - right; left. exists L, b'. split; [cbn; unfold set; destruct (Nat.eq_dec L l); [congruence|auto]|]. auto. }
    constructor; [eapply shape_end; eauto| |]; cbn; intros; apply Ke; eauto.
  - (* Join *) unfold ask in *. cbn in *. specialize (H3 eq_refl). pose proof H1 as IJ. destruct H1 as (Hs & M & NS & NJ).
    pose proof (below_out x T t s I H0 H H2) as NT.
    pose (y := with_join (with_stat (with_item x s (Leaf l) d) (fun u => if T u then Old else stat x u)) l true).
    assert (forall s1, T (tab G s1) = true -> s1 <> s) as NE by congruence.
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v [(L & b' & A & B & C)|[O|O]].
      - left. exists L, b'. cbn. split; auto. split; auto. destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
        assert (s1 <> s) by (intros ->; apply (NS L); auto; destruct A as [A|A]; rewrite A; discriminate). upd.
      - right; left. apply (owed_join_more x); auto; cbn.
        + intros L K. upd.
        + intros L s1 l1 P A B C. assert (s1 <> s) by congruence. split; [exists l1|]; upd.
      - right; right. apply (owed_old_more x); auto. unfold to_look_at. cbn. intros s1 K.
        assert (s1 <> s) by (destruct K; congruence). split; [|split; upd; auto].
        destruct (T (tab G s1)); auto. }
    assert (forall v s0 l0, mapped x v -> shown x v -> stat x (tab G s0) = Live -> serves G s0 v -> what x s0 = Leaf l0 ->
      T (tab G s0) = true -> owed y v) as Below.
    { intros v s0 l0 Mv Sh L0 S0 W0 E. destruct (Sh s0 l0 L0 S0 W0) as [(s1 & A & B & C)|O]; auto.
      destruct (v_leaf _ I _ _ (or_introl L0) W0) as [H0' _]. pose proof (home_tab G l0 s1 s0 A H0') as Et.
      rewrite <- Et in E. pose proof (NE _ E). right; right. exists s1, l0. unfold to_look_at. cbn. rewrite E.
      repeat split; auto; [upd|upd|]. exists s0; auto. }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0, W0. destruct (T (tab G s0)) eqn:E; [discriminate|].
      unfold set in W0. destruct (Nat.eq_dec s0 s) as [->|N].
      - destruct (H3 v) as (s1 & l1 & L1 & S1 & W1 & _); [exists s; auto|]. right.
        apply (Below v s1 l1); auto. eapply (below_leaf x T t s); eauto.
      - destruct (Sh s0 l0 L0 S0 W0) as [(s1 & A & B & C)|O]; auto. left. exists s1. cbn.
        assert (s1 <> s) by congruence. repeat split; auto; upd. }
    constructor; [apply (shape_join x s t T l d); auto| |]; intros; apply Ke; eauto.
  - (* Promote *) unfold ask in *. cbn in *. specialize (H0 eq_refl). specialize (H5 eq_refl). pose proof H3 as IJ.
    destruct H3 as (Hs & M & NS & NJ).
    pose (y := with_join (with_item x s (Leaf l) d') l true).
    assert (joins y l = true) as Jy by (cbn; upd).
    assert (forall s1, dirty x s1 = true -> dirty y s1 = true) as Dy.
    { intros s1 D. cbn. upd. apply H1. congruence. }
    assert (forall s1 l1, what x s1 = Leaf l1 -> exists l2, what y s1 = Leaf l2) as Wy.
    { intros s1 l1 K. cbn. unfold set. destruct (Nat.eq_dec s1 s); eauto. }
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v [(L & b' & A & B & C)|[O|O]].
      - left. exists L, b'. cbn. split; auto. split; auto. destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
        exact (Dy _ D).
      - right; left. apply (owed_join_more x); auto; cbn.
        + intros L K. upd.
        + intros L s1 l1 P A B C. split; [exact (Wy _ _ B)|exact (Dy _ C)].
      - right; right. apply (owed_old_more x); auto. cbn. intros s1 K.
        assert (s1 <> s) by (destruct K; congruence). split; auto. split; [upd|apply Dy]. }
    assert (forall v s1 l1, home G l s1 -> what x s1 = Leaf l1 -> dirty x s1 = true -> cov G l v -> owed y v) as Late.
    { intros v s1 l1 A B D C. right; left. destruct (Wy _ _ B) as [l2 B2]. exists l, s1, l2. repeat split; auto. }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0. destruct (Nat.eq_dec s0 s) as [->|N0].
      - destruct (Sh s l' L0 S0 H) as [(s1 & A & B & C)|O]; auto. right. apply (Late v s1 l'); auto. exists s; auto.
      - assert (what x s0 = Leaf l0) as W1 by (cbn in W0; upd). destruct (v_leaf _ I _ _ (or_introl L0) W1) as [H00 _].
        destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|O]; auto.
        destruct (Nat.eq_dec s1 s) as [->|].
        + right. assert (l0 = l') as -> by congruence. apply (Late v s l'); auto. exists s0; auto.
        + left. exists s1. split; auto. split; [cbn; upd|apply Dy; auto]. }
    constructor; [apply (shape_promote x s l l' d'); auto| |]; intros; apply Ke; eauto.
  - (* JoinEnd *) unfold ask in *. cbn in *. specialize (H0 eq_refl).
    assert (forall v, shown x v -> shown (with_join x l false) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0, W0. destruct (Sh s0 l0 L0 S0 W0) as [A|[O|[(L & s1 & l1 & A & C & B & W & D)|O]]].
      - left. exact A.
      - right; left. exact O.
      - destruct (Nat.eq_dec L l) as [->|].
        + left. destruct C as (s2 & H2 & S2). assert (s0 = s2) as ->.
          { apply (one_leaf x v s0 s2 l0 l); auto. apply (v_place _ I l); auto. }
          rewrite (H0 s2 H2) in W0. injection W0 as <-. exists s1. repeat split; auto. apply (H0 s1 B).
        + right; right; left. exists L, s1, l1. cbn. repeat split; auto. upd.
      - right; right; right. exact O. }
    constructor; [apply shape_join_end; auto| |]; cbn; intros; apply Ke; eauto.
  - (* FlushJoined *) assert (forall v, shown x v -> shown (with_stat (with_cache x c) (set (stat x) t Kept)) v) as Ke.
    { intros v. apply shown_more; auto; unfold to_look_at; cbn; intros u; upd; auto. }
    constructor; [apply shape_flushed; auto| |]; cbn; intros; apply Ke; eauto. eapply Kn; eauto. eapply f_less; eauto.
  - (* Carry *) unfold ask in *. cbn in *. specialize (H0 eq_refl). destruct H as [H|[]]; [|discriminate].
    assert (forall v, shown x v -> shown (with_stat x (set (stat x) t Safe)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0, W0. assert (stat x (tab G s0) = Live) as L1 by upd.
      destruct (Sh s0 l0 L1 S0 W0) as [A|[O|[O|(s1 & l1 & A & B & D & C)]]].
      - left. exact A.
      - right; left. exact O.
      - right; right; left. exact O.
      - destruct (Nat.eq_dec (tab G s1) t) as [E|].
        + left. apply (H0 s1 l1 E B D s0 l0); auto. exists v; auto.
        + right; right; right. exists s1, l1. unfold to_look_at in *. cbn. unfold set.
          destruct (Nat.eq_dec (tab G s1) t); [congruence|]. auto. }
    constructor; [apply shape_away; auto| |]; cbn; intros; apply Ke; eauto.
  - (* Forget *) constructor; [apply shape_forget; auto| |]; cbn; intros.
    + destruct H2. eapply (shown_same x); eauto.
    + destruct H1. eapply (shown_same x); eauto.
  - (* Clear *) destruct (v_leaf _ I _ _ (or_introl H0) H) as [Hs _].
    assert (forall L, home G L s -> ~ forall u, cov G L u -> mapped x u) as Not.
    { intros L C M. destruct (some_va G s) as [u Su]. destruct (H1 u); [exists s; auto|]. apply M. exists s; auto. }
    assert (forall v, mapped x v -> shown x v -> shown (with_cleared (with_item x s Empty false) l) v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd. destruct (v_leaf _ I _ _ (or_introl L0) W1) as [H00 _].
      destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|[(L & b & A & B & C)|[O|O]]].
      - left. exists s1. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; repeat split; auto; upd].
        assert (l0 = l) as -> by congruence. destruct (H1 v); auto. exists s0; auto.
      - right; left. exists L, b. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        right. exists s1. split; auto. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        destruct (Not L C). intros u. apply (v_split _ I L u P).
      - right; right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 P A B C.
        assert (s1 <> s) by (intros ->; apply (Not L A); intros u; apply (v_join _ I L u P)). split; [exists l1|]; upd.
      - right; right; right. apply (owed_old_more x); auto. cbn. intros s1 K. assert (s1 <> s) by (destruct K; congruence).
        repeat split; auto; upd. }
    constructor; [apply shape_clear; auto| |]; cbn; intros; apply Ke; eauto.
  - (* Unlink *) destruct (v_tab _ I _ _ (or_introl H0) H) as (Lt & _ & _).
    assert (forall v, shown x v -> shown (with_stat (with_item x s Empty false) (set (stat x) t Gone)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd. assert (stat x (tab G s0) = Live) as L1 by upd.
      destruct (Sh s0 l0 L1 S0 W1) as [(s1 & A & B & C)|[(L & b & A & B & C)|[O|O]]].
      - left. exists s1. cbn. repeat split; auto; upd.
      - right; left. exists L, b. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        right. exists s1. split; auto. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate). destruct (H3 L P C).
      - right; right; left. apply (owed_join_more x); auto. cbn. intros L s1 l1 P A B C.
        assert (s1 <> s) by congruence. split; [exists l1|]; upd.
      - right; right; right. apply (owed_old_more x); auto. unfold to_look_at. cbn. intros s1 K.
        assert (s1 <> s) by (destruct K; congruence). assert (tab G s1 <> t) by (intros <-; destruct K; congruence).
        repeat split; auto; upd. }
    constructor; [apply shape_unlink; auto| |]; cbn; intros; apply Ke; eauto.
  - (* FlushHole *) constructor; [apply shape_hole; auto| |]; cbn; intros; eapply (shown_same x); eauto.
    eapply Kn; eauto. eapply f_less; eauto.
  - (* FlushTable *) assert (forall v, shown x v -> shown (with_stat (with_cache x c) (set (stat x) t Safe)) v) as Ke.
    { intros v. apply shown_more; auto; unfold to_look_at; cbn; intros u; upd. intros [|]; congruence. }
    constructor; [apply shape_flushed; auto; congruence| |]; cbn; intros; apply Ke; eauto. eapply Kn; eauto. eapply f_less; eauto.
  - (* Free *) cbn in H. assert (stat x t = Fresh \/ stat x t = Safe) as F by (destruct H as [|[|[]]]; auto; discriminate).
    assert (forall v, shown x v -> shown (with_stat x (set (stat x) t Freed)) v) as Ke.
    { intros v. apply shown_more; auto; unfold to_look_at; cbn; intros u; upd. intros [|]; destruct F; congruence. }
    constructor; [apply shape_away; auto; tauto| |]; cbn; intros; apply Ke; eauto.
  - (* HwStart *) constructor; [apply shape_held; auto; split; auto; left; apply v_root; auto| |]; cbn; intros.
    + destruct H0; [|discriminate]. eapply (shown_same x); eauto.
    + eapply (shown_same x); eauto.
  - (* HwDown *) destruct (v_walk _ I _ _ H) as [Lt _]. subst t.
    assert (in_use x (tab G s)) as Ls by (destruct Lt as [|Go]; auto; rewrite (v_gone _ I _ Go) in H2; discriminate).
    destruct (v_tab _ I _ _ Ls H2) as (Lt' & U & R).
    constructor; [apply shape_held; auto; split; auto| |]; cbn; intros.
    + unfold in_use. rewrite Lt'. exact Ls.
    + destruct (down_serves G t' v R) as (s1 & A & B); [congruence|]. exists s1; auto.
    + destruct H0; [|discriminate]. eapply (shown_same x); eauto.
    + eapply (shown_same x); eauto.
  - (* HwFill *) destruct (v_walk _ I _ _ H) as [Lt _]. subst t.
    assert (in_use x (tab G s)) as Ls by (destruct Lt as [|Go]; auto; rewrite (v_gone _ I _ Go) in H2; discriminate).
    constructor; [apply shape_held; auto| |]; cbn; intros.
    + eapply (shown_same x); eauto. destruct H0 as [H0|H0]; [eauto|]. injection H0 as -> -> E.
      eapply (mark_shows x s); eauto.
    + eapply (shown_same x); eauto.
  - (* HwWrite *) constructor; [apply shape_wrote; auto| |]; cbn; intros.
    + eapply (shown_same x); eauto.
    + eapply (shown_same x); eauto. destruct H1 as [H1| ->]; eauto.
  - (* HwCompare *) destruct (v_trans _ I _ _ _ H) as (Hs & Ht & _).
    assert (in_use x (tab G s)) as Ls by (eapply hot_leaf; eauto).
    pose (y := with_dirty x s true).
    assert (forall u, shown y u -> shown (with_held (with_wrote y v) (Trans l s true)) u) as Same
      by (intros u; apply shown_same; auto).
    assert (forall u, cov G l u -> mapped x u -> shown y u) as New.
    { intros u C M. eapply (mark_shows y s l); auto; [apply shape_dirty; auto|cbn; upd]. }
    assert (forall u, shown x u -> shown y u) as Old' by (intros u; apply shown_same; auto; cbn; intros; upd).
    constructor.
    + apply shape_held; [apply shape_wrote, shape_dirty; auto|]. cbn. eauto.
    + cbn. intros l0 s0 u [A|A] C M; apply Same; [apply Old'; eauto|]. injection A as -> ->. auto.
    + cbn. intros u [A| ->] M; apply Same; auto.
  - (* HwBlind *) destruct (v_trans _ I _ _ _ H) as (Hs & Ht & _ & _ & L & Sub & K).
    pose (y := with_dirty x s true).
    assert (forall u, shown y u -> shown (with_held (with_wrote y v) (Trans l s true)) u) as Same
      by (intros u; apply shown_same; auto).
    assert (forall u, cov G l u -> mapped x u -> shown y u) as New.
    { intros u C M. destruct K as [K|[(K & b & K')|K]].
      - assert (in_use x (tab G s)) as Ls by (eapply hot_leaf; eauto).
        eapply (mark_shows y s L); auto; [apply shape_dirty; auto|cbn; upd].
      - intros s0 l0 _ _ _. right; left. exists L, b. split; [auto|]. split; auto. right. exists s. split; auto. cbn. upd.
      - destruct (v_cleared _ I L u); auto. }
    assert (forall u, shown x u -> shown y u) as Old' by (intros u; apply shown_same; auto; cbn; intros; upd).
    constructor.
    + apply shape_held; [apply shape_wrote, shape_dirty; auto|]. cbn. eauto.
    + cbn. intros l0 s0 u [A|A] C M; apply Same; [apply Old'; eauto|]. injection A as -> ->. auto.
    + cbn. intros u [A| ->] M; apply Same; auto.
  - (* HwEvict *) constructor; [apply shape_cache; auto| |]; cbn; intros; eapply (shown_same x); eauto.
Qed.

Lemma start x : initial G x -> inv x.
Proof.
  intros [R U St It Sp Jo Ca Wr Ho Cl].
  assert (forall t, in_use x t -> stat x t = Live) as Us by (intros t [|]; auto; destruct (St t); congruence).
  constructor; [constructor| |]; unfold right; intros; auto.
  - apply Us in H. pose proof (It s H) as A. rewrite H0 in A. rewrite H. auto.
  - destruct (St (tab G s)); congruence.
  - apply Us in H. pose proof (It s H) as A. rewrite H0 in A. destruct A as (A & B & C).
    split; [auto|]. split; intros v Cv; [intros _|]; apply C; auto.
  - destruct H as [H|H]; [apply Us in H|destruct (St (tab G s)); congruence]. pose proof (It s H) as A. rewrite H0 in A. auto.
  - pose proof (It s H) as A. rewrite H0 in A. destruct A as (A & B & C). auto.
  - destruct H. auto.
  - rewrite Jo in H. discriminate.
  - rewrite Jo in H. discriminate.
  - rewrite Sp in H. discriminate.
  - destruct (Cl l); auto.
  - destruct (Ca _ H).
  - destruct (Ca _ H).
  - destruct (Ca _ H).
  - destruct (Wr _ H).
Qed.

Lemma always x0 x : initial G x0 -> reachable G all_rules x0 x -> inv x.
Proof. intros S. induction 1; [apply start|eapply keep]; eauto. Qed.

(** ** The theorems *)
Section Theorems.
Variables x0 x : state.
Hypothesis begins : initial G x0.
Hypothesis reached : reachable G all_rules x0 x.

(** At every instant a walk, however long ago it began or was cached, meets no empty item on the way
   of a mapped address: it goes on to a table in use, which may be one that a leaf has replaced, or to
   a leaf that translates as promised. *)
Theorem walks_are_right v t s : cache x (Walk v t) -> mapped x v -> tab G s = t -> serves G s v ->
  match what x s with
  | Empty => False
  | Tab t' => in_use x t' /\ dom G t' v
  | Leaf l => cov G l v /\ tr G l v = spec G v
  end.
Proof.
  intros C M <- S. pose proof (v_shape _ (always _ _ begins reached)) as I. destruct (v_walk _ I _ _ C) as [H _].
  destruct (what x s) as [|l|t'] eqn:W.
  - eapply (v_empty _ I s); eauto.
  - assert (in_use x (tab G s)) as Ls by (eapply hot_leaf; eauto).
    destruct (v_leaf _ I _ _ Ls W) as (A & B & _). assert (cov G l v) by (exists s; auto). auto.
  - assert (in_use x (tab G s)) as Ls by (destruct H as [|Go]; auto; rewrite (v_gone _ I _ Go) in W; discriminate).
    destruct (v_tab _ I _ _ Ls W) as (A & B & R). split; [unfold in_use; rewrite A; exact Ls|].
    destruct (down_serves G t' v R) as (s1 & ? & ?); [congruence|]. exists s1; auto.
Qed.

(** A cached translation of any age translates every mapped address as promised. *)
Theorem caches_are_right l s d v : cache x (Trans l s d) -> cov G l v -> mapped x v -> tr G l v = spec G v.
Proof. intros C Cv M. apply (v_trans _ (v_shape _ (always _ _ begins reached)) l s d); auto. Qed.

(** No D is lost: once no split and no join is under way, and every table that a leaf has replaced was
   flushed and looked at, the leaf that serves an address that was written is dirty. *)
Theorem no_dirty_bit_is_lost v s l : wrote x v -> mapped x v -> quiet x ->
  stat x (tab G s) = Live -> serves G s v -> what x s = Leaf l -> marked G x l.
Proof.
  intros W M (N & J & O) L S K.
  destruct (v_wrote _ (always _ _ begins reached) v W M s l L S K)
    as [|[(l' & b & [E|E] & _)|[(l' & s' & k & E & _)|(s' & k & [E|E] & _)]]]; auto.
  - rewrite N in E; discriminate.
  - rewrite N in E; discriminate.
  - rewrite J in E; discriminate.
  - destruct (O (tab G s')); contradiction.
  - destruct (O (tab G s')); contradiction.
Qed.

(** Nothing that hardware holds, or can read next, is in a table that was freed. *)
Theorem no_freed_table_is_reached :
  (forall v t, cache x (Walk v t) -> stat x t <> Freed) /\
  (forall l s d, cache x (Trans l s d) -> stat x (tab G s) <> Freed) /\
  (forall s t, hot G x s -> what x s = Tab t -> stat x t <> Freed).
Proof.
  pose proof (v_shape _ (always _ _ begins reached)) as I. repeat split.
  - intros v t C. destruct (v_walk _ I _ _ C) as [[[-> | ->] | ->] _]; discriminate.
  - intros l s d C. destruct (v_trans _ I _ _ _ C) as (_ & [[-> | ->] | ->] & _); discriminate.
  - intros s t [L|Go] W.
    + destruct (v_tab _ I _ _ L W) as (-> & _). destruct L as [-> | ->]; discriminate.
    + rewrite (v_gone _ I _ Go) in W. discriminate.
Qed.

(** After split with its flush, unmap and its flush, nothing leads into the hole: no cached translation
   of any size, and no walk. *)
Theorem nothing_leads_into_a_hole v : hole x v ->
  (forall l s d, cache x (Trans l s d) -> ~ cov G l v) /\
  (forall t s l, cache x (Walk v t) -> tab G s = t -> serves G s v -> what x s <> Leaf l).
Proof.
  intros H. pose proof (v_shape _ (always _ _ begins reached)) as I. split.
  - intros l s d C Cv. destruct (v_trans _ I _ _ _ C) as (_ & _ & _ & N & _). eapply N; eauto.
  - intros t s l C <- S W. destruct (v_walk _ I _ _ C) as [Ht _].
    assert (in_use x (tab G s)) as Ls by (eapply hot_leaf; eauto).
    destruct (v_leaf _ I _ _ Ls W) as (A & _ & N). eapply N; eauto. exists s; auto.
Qed.
End Theorems.
End Proofs.

Print Assumptions walks_are_right.
Print Assumptions caches_are_right.
Print Assumptions no_dirty_bit_is_lost.
Print Assumptions no_freed_table_is_reached.
Print Assumptions nothing_leads_into_a_hole.
