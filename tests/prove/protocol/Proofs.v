(* SPDX-License-Identifier: GPL-2.0-only *)

(** * What the protocol keeps, in every state that can be reached *)

From Coq Require Import Arith Bool Lia.
From IoPte Require Import Protocol.

Section Proofs.
Variable G : geometry.

(** ** Tables are a tree *)

Definition right (x : state) l := forall v, cov G l v -> mapped x v -> tr G l v = spec G v.

(** Of what software has made and what hardware holds, but for D. *)
Record shape (x : state) : Prop := {
  v_root : stat x (root G) = Live;
  v_up : forall t, stat x t = Live -> t <> root G -> stat x (tab G (up G t)) = Live /\ what x (up G t) = Tab t;
  v_tab : forall s t, stat x (tab G s) = Live -> what x s = Tab t -> stat x t = Live /\ up G t = s /\ t <> root G;
  v_gone : forall s, stat x (tab G s) = Gone -> what x s = Empty;
  v_leaf : forall s l, stat x (tab G s) = Live -> what x s = Leaf l ->
    home G l s /\ right x l /\ forall v, cov G l v -> ~ hole x v;
  v_empty : forall s v, hot G x s -> what x s = Empty -> serves G s v -> ~ mapped x v;
  v_whole : forall s l, stat x (tab G s) = Live -> what x s = Leaf l ->
    whole G x l \/ (exists L, is_split (splits x L) /\ forall s', home G l s' -> home G L s') \/
    forall v, cov G l v -> ~ mapped x v;
  v_split : forall l v, is_split (splits x l) -> cov G l v -> mapped x v;
  v_home : forall l s, is_split (splits x l) -> home G l s -> stat x (tab G s) <> Fresh;
  v_flushed : forall l b s, splits x l = Flushed b -> stat x (tab G s) = Live -> home G l s -> what x s <> Leaf l;
  v_hole : forall v, hole x v -> ~ mapped x v;
  v_cleared : forall l v, cleared x l -> cov G l v -> ~ mapped x v;
  v_walk : forall v t, cache x (Walk v t) -> (stat x t = Live \/ stat x t = Gone) /\ dom G t v;
  v_trans : forall l s d, cache x (Trans l s d) -> home G l s /\ hot G x s /\ right x l /\
    (forall v, cov G l v -> ~ hole x v) /\ (what x s = Leaf l \/ (exists b, splits x l = Open b) \/ cleared x l);
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

(** ** Dirty bits: a write shows in the leaf that serves the address, or the fold will see to it *)
Definition owed (x : state) v := exists L b, (splits x L = Open b \/ splits x L = Flushed b) /\ cov G L v /\
  (b = true \/ exists s, home G L s /\ dirty x s = true).
Definition shown (x : state) v := forall s l, stat x (tab G s) = Live -> serves G s v -> what x s = Leaf l ->
  marked G x l \/ owed x v.

Record inv (x : state) : Prop := {
  v_shape : shape x;
  v_known : forall l s v, cache x (Trans l s true) -> cov G l v -> mapped x v -> shown x v;
  v_wrote : forall v, wrote x v -> mapped x v -> shown x v;
}.

Lemma mark_shows x s l v : shape x -> stat x (tab G s) = Live -> what x s = Leaf l -> dirty x s = true ->
  cov G l v -> mapped x v -> shown x v.
Proof.
  intros I Ls W D C M s0 l0 L0 S0 W0.
  destruct (v_leaf _ I _ _ Ls W) as [H _].
  destruct (v_whole _ I _ _ Ls W) as [Wh | [(L & P & Sub) | U]].
  - left. destruct C as (s1 & H1 & S1).
    assert (tab G s1 = tab G s) as E by (eapply home_tab; eauto).
    assert (s0 = s1) as -> by (eapply (one_leaf x v); eauto; rewrite E; auto).
    rewrite (Wh s1 H1) in W0. injection W0 as <-. exists s; auto.
  - right. destruct C as (s1 & H1 & S1). exists L.
    destruct (splits x L) as [|b|b] eqn:E; [destruct P; auto| |]; exists b; repeat split; auto;
      try (exists s1; split; auto); right; exists s; auto.
  - destruct (U v C M).
Qed.

Ltac upd := unfold set in *; repeat match goal with
  | H : context[Nat.eq_dec ?a ?b] |- _ => destruct (Nat.eq_dec a b); [subst | ]
  | |- context[Nat.eq_dec ?a ?b] => destruct (Nat.eq_dec a b); [subst | ]
  end; try congruence.

(** More D, or nothing but the cache, the ranges or what was written changed. *)
Lemma shown_more x y v : (forall s, what y s = what x s) -> (forall t, stat y t = stat x t) ->
  (forall l, splits y l = splits x l) -> (forall s, dirty x s = true -> dirty y s = true) -> shown x v -> shown y v.
Proof.
  intros W S P D Sh s l Ls Sv Wl. rewrite S in Ls. rewrite W in Wl.
  destruct (Sh s l Ls Sv Wl) as [(s1 & ? & ? & ?) | (L & b & E & C & B)].
  - left. exists s1. rewrite W. auto.
  - right. exists L, b. rewrite P. repeat split; auto. destruct B as [|(s1 & ? & ?)]; [|right; exists s1]; auto.
Qed.

Definition ok := step G all_rules.

Lemma live_or_gone_leaf x s l : shape x -> hot G x s -> what x s = Leaf l -> stat x (tab G s) = Live.
Proof. intros I [|Go] W; auto. rewrite (v_gone _ I _ Go) in W. discriminate. Qed.

Lemma below_built x T t s l : built G x T t l -> up G t = s ->
  forall n s0 v, depth G (tab G s0) = n -> T (tab G s0) = true -> serves G s0 v -> serves G s v.
Proof.
  intros B <-. induction n as [|n IH]; intros s0 v E HT Sv; destruct (b_up _ _ _ _ _ B _ HT) as [R U].
  - apply top_depth in E. contradiction.
  - pose proof (up_depth G _ R). apply up_serves in Sv; auto.
    destruct U as [<-|[HT' _]]; auto. eapply IH; eauto. lia.
Qed.

Ltac fields I :=
  pose proof (v_up _ I) as Up; pose proof (v_tab _ I) as Tb; pose proof (v_gone _ I) as Go; pose proof (v_leaf _ I) as Lf;
  pose proof (v_empty _ I) as Em; pose proof (v_whole _ I) as Wh; pose proof (v_split _ I) as Sp;
  pose proof (v_home _ I) as Ho; pose proof (v_flushed _ I) as Fl; pose proof (v_hole _ I) as Hl;
  pose proof (v_cleared _ I) as Cl; pose proof (v_walk _ I) as Wa; pose proof (v_trans _ I) as Tr;
  pose proof (v_root _ I) as Rt; constructor; cbn; intros.

(** *** Shape: one lemma a step *)
Lemma shape_cache x c : shape x -> (forall h, c h -> cache x h) -> shape (with_cache x c).
Proof. intros I Sub. destruct I; constructor; cbn; eauto. Qed.

Lemma shape_dirty x s d : shape x -> shape (with_dirty x s d).
Proof. intros I. destruct I; constructor; cbn; auto. Qed.

Lemma shape_wrote x v : shape x -> shape (with_wrote x v).
Proof. intros I. destruct I; constructor; cbn; auto. Qed.

Lemma shape_init x s k d : shape x -> stat x (tab G s) = Fresh -> shape (with_item x s k d).
Proof.
  intros I F. fields I; unfold hot, right in *; cbn in *; auto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; eauto.
  - upd; eauto.
  - upd; eauto. 
  - upd; [destruct H; congruence | eauto].
  - assert (what x s0 = Leaf l) as W by upd. destruct (Wh s0 l H W) as [A|[A|A]]; auto. left.
    intros s' H'. cbn. destruct (Lf s0 l H W) as [Hs _]. pose proof (home_tab G l s' s0 H' Hs). upd; auto.
  - eauto.
  - eauto.
  - upd; eauto.
  - eauto.
  - destruct (Tr l s0 d0 H) as (A & B & C & D & E). repeat split; auto.
    destruct E as [E|E]; auto. left. unfold hot in B. upd. destruct B; congruence.
Qed.

Lemma shape_subdivide x s l d b t T : shape x -> what x s = Leaf l -> dirty x s = d -> stat x (tab G s) = Live ->
  in_split G x l s b -> up G t = s -> T t = true -> built G x T t l ->
  shape (with_split (with_stat (with_item x s (Tab t) false) (fun u => if T u then Live else stat x u)) l (Open (b || d))).
Proof.
  intros I W D Ls (Hs & P & NC & M & Alone) U HT B.
  assert (T (tab G s) = false) as NT.
  { destruct (T (tab G s)) eqn:E; auto. rewrite (b_fresh _ _ _ _ _ B _ E) in Ls. discriminate. }
  assert (forall s', T (tab G s') = true -> s' <> s) as NS by congruence.
  destruct (v_leaf _ I _ _ Ls W) as (_ & Rl & NHl).
  assert (forall l' s', home G l' s' -> T (tab G s') = true -> l' <> l) as NL.
  { intros l' s' H' HT' ->. rewrite (home_tab G l s' s H' Hs) in HT'. congruence. }
  fields I; unfold hot, right in *; cbn in *; auto.
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
      * destruct (Tb s0 t0 H H0) as (A & C & F). destruct (T t0); auto.
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
    assert (forall L, is_split (splits x L) -> is_split (set (splits x) l (Open (b || d)) L)) as Keep.
    { intros L HL. unfold set. destruct (Nat.eq_dec L l); auto. discriminate. }
    destruct (T (tab G s0)) eqn:E.
    + pose proof (b_item _ _ _ _ _ B _ E) as BI. rewrite W0 in BI. destruct BI as (A & Wl & _).
      left. intros s' H'. pose proof (home_tab G l0 s' s0 H' A) as Et. rewrite <- Et in E. specialize (NS _ E). cbn. upd. auto.
    + destruct (Nat.eq_dec l0 l) as [->|].
      * right; left. exists l. split; auto. unfold set. destruct (Nat.eq_dec l l); [discriminate|congruence].
      * destruct (Wh s0 l0 H W0) as [A|[(L & A & C)|A]]; [left|right;left;exists L|]; auto.
        intros s' H'. specialize (A s' H'). cbn. upd.
  - upd; [apply M|eapply Sp]; eauto.
  - destruct (T (tab G s0)); [discriminate|]. unfold set in *. destruct (Nat.eq_dec l0 l) as [->|]; [rewrite (home_tab G l s0 s); auto; congruence|eauto].
  - unfold set in H. destruct (Nat.eq_dec l0 l); [discriminate|].
    destruct (T (tab G s0)) eqn:E; [|upd; eauto].
    pose proof (NS _ E). pose proof (b_item _ _ _ _ _ B _ E) as BI. intros W0.
    assert (what x s0 = Leaf l0) as W1 by upd. rewrite W1 in BI. destruct BI as (_ & _ & NP & _). congruence.
  - eauto.
  - destruct (Wa v t0 H) as [A C]. split; auto. destruct (T t0); auto.
  - destruct (Tr l0 s0 d0 H) as (A & C & E & F & K). split; [auto|split; [|split;[auto|split;[auto|]]]].
    + destruct (T (tab G s0)); auto.
    + destruct K as [K|[[b' K]|K]]; auto.
      * destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; left. exists (b || d). rewrite W in K. injection K as <-. upd.
      * right; left. destruct (Nat.eq_dec l0 l) as [->|]; [exists (b || d)|exists b']; upd.
Qed.

Lemma shape_demote x s l d b l' d' : shape x -> what x s = Leaf l -> dirty x s = d -> stat x (tab G s) = Live ->
  in_split G x l s b -> home G l' s -> l' <> l -> splits x l' = No -> ~ cleared x l' ->
  (forall s', home G l' s' -> home G l s') -> (forall v, cov G l' v -> tr G l' v = tr G l v) ->
  shape (with_split (with_item x s (Leaf l') d') l (Open b)).
Proof.
  intros I W D Ls (Hs & P & NC & M & Alone) H' NE NP NC' Sub Same.
  destruct (v_leaf _ I _ _ Ls W) as (_ & Rl & NHl).
  assert (forall v, cov G l' v -> cov G l v) as SubC by (intros v (s1 & A & B); exists s1; auto).
  fields I; unfold hot, right in *; cbn in *; auto.
  - destruct (Up t H H0). split; auto. upd.
  - upd; eauto.
  - upd; eauto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|]; [|apply Lf; auto]. injection H0 as <-. repeat split; auto.
    intros v C Mv. rewrite Same; auto.
  - unfold set in H0. destruct (Nat.eq_dec s0 s); [discriminate|eapply Em; eauto].
  - assert (is_split (set (splits x) l (Open b) l)) as Pl by (unfold set; destruct (Nat.eq_dec l l); [discriminate|congruence]).
    unfold set in H0. destruct (Nat.eq_dec s0 s) as [->|].
    + injection H0 as <-. right; left. exists l. auto.
    + destruct (Nat.eq_dec l0 l) as [->|]; [right; left; exists l; auto|].
      destruct (Wh s0 l0 H H0) as [A|[(L & A & C)|A]]; auto.
      * left. intros s' H''. specialize (A s' H''). cbn. upd.
      * right; left. exists L. split; auto. unfold set. destruct (Nat.eq_dec L l); auto. discriminate.
  - upd; [apply M|eapply Sp]; eauto.
  - unfold set in *. destruct (Nat.eq_dec l0 l) as [->|]; [rewrite (home_tab G l s0 s); auto; congruence|eauto].
  - upd; eauto.
  - eauto.
  - destruct (Tr l0 s0 d0 H) as (A & C & E & F & K). repeat split; auto.
    destruct K as [K|[[b' K]|K]]; auto.
    + destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; left. exists b. rewrite W in K. injection K as <-. upd.
    + right; left. destruct (Nat.eq_dec l0 l) as [->|]; [exists b|exists b']; upd.
Qed.

(** A split goes on, with the same leaf open, or flushed and nothing left of it. *)
Lemma shape_flush x l b c : shape x -> splits x l = Open b -> (forall s, home G l s -> what x s <> Leaf l) ->
  flushes G (cov G l) (cache x) c -> shape (with_split (with_cache x c) l (Flushed b)).
Proof.
  intros I P N F. fields I; unfold hot, right in *; cbn in *; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. right; left. exists L. split; auto.
    unfold set. destruct (Nat.eq_dec L l); auto. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Sp l v); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Ho l s); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. auto.
  - apply Wa. eapply f_less; eauto.
  - destruct (Tr l0 s d) as (A & C & E & K & L); [eapply f_less; eauto|]. repeat split; auto.
    destruct L as [L|[[b' L]|L]]; auto. right; left. exists b'. unfold set.
    destruct (Nat.eq_dec l0 l) as [->|]; auto. destruct (f_trans _ _ _ _ F _ _ _ H). auto.
Qed.

Lemma shape_look x l b : shape x -> splits x l = Flushed b -> shape (with_split x l (Flushed true)).
Proof.
  intros I P. fields I; unfold hot, right in *; cbn in *; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. right; left. exists L. split; auto.
    unfold set. destruct (Nat.eq_dec L l); auto. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Sp l v); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [|eauto]. apply (Ho l s); auto. rewrite P. discriminate.
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; eauto.
  - destruct (Tr l0 s d H) as (A & C & E & K & L). repeat split; auto.
    destruct L as [L|[[b' L]|L]]; auto. right; left. exists b'. upd.
Qed.

Lemma shape_end x l b : shape x -> splits x l = Flushed b ->
  (forall s l', home G l s -> what x s = Leaf l' -> whole G x l') -> shape (with_split x l No).
Proof.
  intros I P Whole. fields I; unfold hot, right in *; cbn in *; auto; eauto.
  - destruct (Wh s l0 H H0) as [A|[(L & A & C)|A]]; auto. destruct (Nat.eq_dec L l) as [->|].
    + left. destruct (Lf s l0 H H0) as [Hs _]. apply (Whole s); auto.
    + right; left. exists L. split; auto. unfold set. destruct (Nat.eq_dec L l); [congruence|auto].
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [destruct H; auto|eauto].
  - unfold set in H. destruct (Nat.eq_dec l0 l) as [->|]; [destruct H; auto|eauto].
  - upd; eauto.
  - destruct (Tr l0 s d H) as (A & C & E & K & L). repeat split; auto.
    destruct L as [L|[[b' L]|L]]; auto. right; left. exists b'. upd.
Qed.

Lemma shape_forget x R : shape x -> (forall l v, is_split (splits x l) -> cov G l v -> ~ R v) ->
  shape (with_ranges x (fun v => mapped x v /\ ~ R v) (hole x)).
Proof.
  intros I N. fields I; unfold hot, right in *; cbn in *; auto; eauto.
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
  intros I W Ls N. destruct (v_leaf _ I _ _ Ls W) as (Hs & _).
  fields I; unfold hot, right in *; cbn in *; auto; eauto.
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
  - destruct (Tr l0 s0 d H) as (A & B & C & D & E). repeat split; auto.
    destruct E as [E|[E|E]]; auto. destruct (Nat.eq_dec s0 s) as [->|]; [|left; upd]. right; right; right. congruence.
Qed.

Lemma shape_unlink x s t : shape x -> what x s = Tab t -> stat x (tab G s) = Live ->
  (forall s', tab G s' = t -> what x s' = Empty) -> (forall v, dom G t v -> ~ mapped x v) ->
  shape (with_stat (with_item x s Empty false) (set (stat x) t Gone)).
Proof.
  intros I W Ls E N. destruct (v_tab _ I _ _ Ls W) as (Lt & U & R).
  assert (tab G s <> t) as NS. { pose proof (up_depth G _ R). rewrite U in *. intros <-. lia. }
  fields I; unfold hot, right in *; cbn in *; auto.
  - upd.
  - unfold set in H. destruct (Nat.eq_dec t0 t); [discriminate|]. destruct (Up t0 H H0) as [A B]. split.
    + unfold set. destruct (Nat.eq_dec (tab G (up G t0)) t); auto. rewrite E in B; auto. discriminate.
    + upd.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|].
    destruct (Tb s0 t0 H H0) as (A & B & C). destruct (Nat.eq_dec t0 t); [congruence|auto].
  - upd; auto.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|auto].
  - unfold set in *. destruct (Nat.eq_dec s0 s) as [->|].
    + apply N. destruct (down_serves G t v R) as (s1 & A & B); [congruence|]. exists s1; auto.
    + apply (Em s0); auto. destruct (Nat.eq_dec (tab G s0) t); auto. left. congruence.
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|].
    destruct (Wh s0 l H H0) as [A|[A|A]]; auto. left. intros s' H'. specialize (A s' H'). cbn. upd.
  - eauto.
  - unfold set. destruct (Nat.eq_dec (tab G s0) t); [discriminate|eauto].
  - unfold set in *. destruct (Nat.eq_dec (tab G s0) t); [discriminate|]. destruct (Nat.eq_dec s0 s); [discriminate|eauto].
  - eauto.
  - destruct (Wa v t0 H) as [A B]. split; auto. upd; auto.
  - destruct (Tr l s0 d H) as (A & B & C & D & K). repeat split; auto.
    + upd; auto.
    + destruct K as [K|K]; auto. left. upd.
Qed.

Lemma shape_hole x R c : shape x -> flushes G R (cache x) c -> (forall v, R v -> ~ mapped x v) ->
  (forall s l v, hot G x s -> what x s = Leaf l -> cov G l v -> ~ R v) ->
  (forall l v, cleared x l -> cov G l v -> R v -> forall u, cov G l u -> R u) ->
  shape (with_ranges (with_cache x c) (mapped x) (fun v => hole x v \/ R v)).
Proof.
  intros I F N NL NC. fields I; unfold hot, right in *; cbn in *; auto; eauto.
  - destruct (Lf s l H H0) as (A & B & C). repeat split; auto. intros v Cv [|]; [eapply C|eapply NL]; eauto.
  - destruct H as [H|H]; auto.
  - apply Wa. eapply f_less; eauto.
  - destruct (Tr l s d) as (A & B & C & D & K); [eapply f_less; eauto|]. repeat split; auto.
    intros v Cv [|HR]; [eapply D; eauto|]. destruct K as [K|[[b K]|K]].
    + eapply NL; eauto.
    + eapply N; eauto. apply (v_split _ I l v); auto. rewrite K. discriminate.
    + apply (f_trans _ _ _ _ F _ _ _ H). eauto.
Qed.

(** A table leaves what hardware may read. *)
Lemma shape_flush_table x t c : shape x -> stat x t = Gone -> flushes G (dom G t) (cache x) c ->
  shape (with_stat (with_cache x c) (set (stat x) t Safe)).
Proof.
  intros I Gt F.
  assert (forall u, set (stat x) t Safe u = Live -> stat x u = Live) as Lv by (intros u; upd).
  assert (forall u, stat x u = Live -> set (stat x) t Safe u = Live) as Vl by (intros u; upd).
  assert (forall u, set (stat x) t Safe u = Gone -> stat x u = Gone) as Gn by (intros u; upd).
  assert (forall u, set (stat x) t Safe u = Fresh -> stat x u = Fresh) as Fr by (intros u; upd).
  fields I; unfold hot, right in *; cbn in *; eauto.
  - destruct (Up t0 (Lv _ H) H0); auto.
  - destruct (Tb s t0 (Lv _ H) H0) as (A & B & C); auto.
  - apply (Em s); auto. destruct H; auto.
  - intros E. apply (Ho l s H H0). auto.
  - destruct (Wa v t0) as [A B]; [eapply f_less; eauto|]. split; auto.
    assert (t0 <> t) by (intros ->; eapply f_walk; eauto). upd.
  - destruct (Tr l s d) as (A & B & C & D & K); [eapply f_less; eauto|]. repeat split; auto.
    assert (tab G s <> t).
    { intros <-. apply (f_trans _ _ _ _ F _ _ _ H). intros v (s1 & H1 & S1). exists s1. split; auto. eapply home_tab; eauto. }
    upd.
Qed.

Lemma shape_free x t : shape x -> stat x t = Fresh \/ stat x t = Safe -> shape (with_stat x (set (stat x) t Freed)).
Proof.
  intros I St. assert (stat x t <> Live /\ stat x t <> Gone) as [NL NG] by (destruct St as [-> | ->]; split; discriminate).
  assert (forall u, set (stat x) t Freed u = Live -> stat x u = Live) as Lv by (intros u; upd).
  assert (forall u, stat x u = Live -> set (stat x) t Freed u = Live) as Vl by (intros u; upd).
  assert (forall u, set (stat x) t Freed u = Gone -> stat x u = Gone) as Gn by (intros u; upd).
  assert (forall u, stat x u = Gone -> set (stat x) t Freed u = Gone) as Ng by (intros u; upd).
  assert (forall u, set (stat x) t Freed u = Fresh -> stat x u = Fresh) as Fr by (intros u; upd).
  fields I; unfold hot, right in *; cbn in *; eauto.
  - destruct (Up t0 (Lv _ H) H0); auto.
  - destruct (Tb s t0 (Lv _ H) H0) as (A & B & C); auto.
  - apply (Em s); auto. destruct H; auto.
  - intros E. apply (Ho l s H H0). auto.
  - destruct (Wa v t0) as [[A|A] B]; auto.
  - destruct (Tr l s d) as (A & [B|B] & C & D & K); auto; repeat split; auto.
Qed.

Lemma shape_held x h : shape x -> (match h with
  | Walk v t => stat x t = Live /\ dom G t v
  | Trans l s d => stat x (tab G s) = Live /\ what x s = Leaf l \/ exists d', cache x (Trans l s d') end) -> shape (with_held x h).
Proof.
  intros I N. fields I; unfold hot, right in *; cbn in *; auto; eauto.
  - destruct H as [H| <-]; auto. destruct N. auto.
  - destruct H as [H| <-]; [apply (Tr l s d); auto|]. destruct N as [[A B]|[d' N]]; [|apply (Tr l s d'); auto].
    destruct (v_leaf _ I _ _ A B) as (? & ? & ?). repeat split; auto.
Qed.

(** *** All of it *)
Lemma keep x y : inv x -> ok x y -> inv y.
Proof.
  intros Inv St. pose proof (v_shape _ Inv) as I. pose proof (v_known _ Inv) as Kn. pose proof (v_wrote _ Inv) as Wr.
  destruct St.
  - (* Init *) assert (forall v, mapped x v -> shown x v -> shown (with_item x s k d) v) as Ke.
    { intros v M Sh s0 l L0 S0 W0. cbn in *. assert (what x s0 = Leaf l) as W1 by upd.
      destruct (v_leaf _ I _ _ L0 W1) as [H0 _]. destruct (Sh s0 l L0 S0 W1) as [(s1 & A & B & C)|(L & b & A & B & C)].
      - left. exists s1. pose proof (home_tab G l s1 s0 A H0). cbn. assert (s1 <> s) by congruence. repeat split; auto; upd.
      - right. exists L, b. repeat split; auto. destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        pose proof (v_home _ I _ _ P C). cbn. assert (s1 <> s) by congruence. upd. }
    constructor; [apply shape_init; auto| |]; cbn; intros; apply Ke; eauto.
  - (* Subdivide *) unfold ask in *. cbn in *. specialize (H0 eq_refl). specialize (H5 eq_refl). destruct H2 as (Hs & P & NC & M & Alone).
    pose (y := with_split (with_stat (with_item x s (Tab t) false) (fun u => if T u then Live else stat x u)) l (Open (b || d))).
    assert (splits y l = Open (b || d)) as Pl by (cbn; upd).
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v (L & b' & A & B & C).
      assert (is_split (splits x L)) as PL by (destruct A as [A|A]; rewrite A; discriminate).
      destruct (Nat.eq_dec L l) as [->|NE].
      - exists l, (b || d). split; auto. split; auto.
        destruct C as [->|(s1 & C & D)].
        + left. assert (b = true) as -> by (destruct P as [P|[P _]], A as [A|A]; congruence). reflexivity.
        + destruct (Nat.eq_dec s1 s) as [->|]; [left; rewrite <- H0, D; apply orb_true_r|].
          right. exists s1. split; auto. cbn. upd.
      - exists L, b'. cbn. split; [|split; auto].
        + unfold set. destruct (Nat.eq_dec L l); auto. congruence.
        + destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto.
          assert (s1 <> s) by (intros ->; apply NE; auto). upd. }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd.
      assert (forall s1, home G l s1 -> dirty x s1 = true -> cov G l v -> owed y v) as Late.
      { intros s1 A D C. exists l, (b || d). split; auto. split; auto.
        destruct (Nat.eq_dec s1 s) as [->|]; [left; rewrite <- H0, D; apply orb_true_r|].
        right. exists s1. split; auto. cbn. upd. }
      destruct (T (tab G s0)) eqn:E.
      - assert (serves G s v) as Sv by (eapply (below_built x T t s l); eauto).
        destruct (Sh s l H1 Sv H) as [(s1 & A & B & C)|O]; auto. right. apply (Late s1); auto. exists s; auto.
      - destruct (v_leaf _ I _ _ L0 W1) as [H00 _].
        destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|O]; auto.
        destruct (Nat.eq_dec s1 s) as [->|].
        + right. assert (l0 = l) as -> by congruence. apply (Late s); auto. exists s0; auto.
        + left. exists s1. cbn. repeat split; auto; upd. }
    constructor; [eapply shape_subdivide; eauto; repeat split; auto| |]; intros; apply Ke; eauto.
  - (* Demote *) unfold ask in *. cbn in *. specialize (H0 eq_refl). pose proof H3 as IS. destruct H3 as (Hs & P & NC & M & Alone).
    pose (y := with_split (with_item x s (Leaf l') d') l (Open b)).
    assert (splits y l = Open b) as Pl by (cbn; upd).
    assert (forall s1, dirty x s1 = true -> dirty y s1 = true) as Dy.
    { intros s1 D. cbn. upd. apply H1. congruence. }
    assert (forall v, owed x v -> owed y v) as Ow.
    { intros v (L & b' & A & B & C). destruct (Nat.eq_dec L l) as [->|NE].
      - exists l, b. split; auto. split; auto. destruct C as [->|(s1 & C & D)]; [|right; exists s1; auto].
        left. destruct P as [P|[P _]], A as [A|A]; congruence.
      - exists L, b'. cbn. split; [unfold set; destruct (Nat.eq_dec L l); auto; congruence|]. split; auto.
        destruct C as [|(s1 & C & D)]; auto. right. exists s1. split; auto. exact (Dy s1 D). }
    assert (forall v, mapped x v -> shown x v -> shown y v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0.
      assert (forall s1, home G l s1 -> dirty x s1 = true -> cov G l v -> owed y v) as Late.
      { intros s1 A D C. exists l, b. split; auto. split; auto. right. exists s1. split; auto. }
      destruct (Nat.eq_dec s0 s) as [->|N0].
      - destruct (Sh s l L0 S0 H) as [(s1 & A & B & C)|O]; auto. right. apply (Late s1); auto. exists s; auto.
      - assert (what x s0 = Leaf l0) as W1 by (cbn in W0; upd). destruct (v_leaf _ I _ _ L0 W1) as [H00 _].
        destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|O]; auto.
        destruct (Nat.eq_dec s1 s) as [->|].
        + right. assert (l0 = l) as -> by congruence. apply (Late s); auto. exists s0; auto.
        + left. exists s1. split; auto. split; auto. cbn. upd. }
    constructor; [eapply shape_demote; eauto| |]; intros; apply Ke; eauto.
  - (* FlushOld *) assert (forall v, shown x v -> shown (with_split (with_cache x c) l (Flushed b)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *. destruct (Sh s0 l0 L0 S0 W0) as [A|(L & b' & A & B & C)]; [left; exact A|].
      right. destruct (Nat.eq_dec L l) as [->|].
      - exists l, b. assert (b' = b) as -> by (destruct A; congruence). split; [right; cbn; upd|]. auto.
      - exists L, b'. split; [cbn; unfold set; destruct (Nat.eq_dec L l); [congruence|auto]|]. auto. }
    constructor; [apply shape_flush; auto| |]; cbn; intros; apply Ke; eauto. eapply Kn; eauto. eapply f_less; eauto.
  - (* FoldLook *) assert (forall v, shown x v -> shown (with_split x l (Flushed true)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *. destruct (Sh s0 l0 L0 S0 W0) as [A|(L & b' & A & B & C)]; [left; exact A|].
      right. destruct (Nat.eq_dec L l) as [->|].
      - exists l, true. split; [right; cbn; upd|]. auto.
      - exists L, b'. split; [cbn; unfold set; destruct (Nat.eq_dec L l); [congruence|auto]|]. auto. }
    constructor; [eapply shape_look; eauto| |]; cbn; intros; apply Ke; eauto.
  - (* FoldMark *) constructor; [apply shape_dirty; auto| |]; cbn; intros; eapply (shown_more x); eauto; cbn; intros; upd.
  - (* FoldClean *) assert (forall v, shown x v -> shown (with_dirty x s false) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *. destruct (Sh s0 l0 L0 S0 W0) as [(s1 & A & B & C)|(L & b & A & B & C)].
      - left. exists s1. cbn. repeat split; auto. upd.
      - right. exists L, b. cbn. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        destruct (Nat.eq_dec s1 s) as [->|]; [left|right; exists s1; split; auto; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        specialize (H1 L P C). destruct A; congruence. }
    constructor; [apply shape_dirty; auto| |]; cbn; intros; apply Ke; eauto.
  - (* FoldEnd *) cbn in *. unfold ask in H0. specialize (H0 eq_refl).
    assert (forall v, shown x v -> shown (with_split x l No) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in *. destruct (Sh s0 l0 L0 S0 W0) as [A|(L & b' & A & B & C)]; [left; exact A|].
      destruct (Nat.eq_dec L l) as [->|].
      - left. assert (b' = b) as -> by (destruct A; congruence). apply (H0 C s0 l0); auto. exists v; auto.
      - right. exists L, b'. split; [cbn; unfold set; destruct (Nat.eq_dec L l); [congruence|auto]|]. auto. }
    constructor; [eapply shape_end; eauto| |]; cbn; intros; apply Ke; eauto.
  - (* Forget *) constructor; [apply shape_forget; auto| |]; cbn; intros.
    + destruct H2. eapply (shown_more x); eauto.
    + destruct H1. eapply (shown_more x); eauto.
  - (* Clear *) destruct (v_leaf _ I _ _ H0 H) as [Hs _].
    assert (forall v, mapped x v -> shown x v -> shown (with_cleared (with_item x s Empty false) l) v) as Ke.
    { intros v Mv Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd. destruct (v_leaf _ I _ _ L0 W1) as [H00 _].
      destruct (Sh s0 l0 L0 S0 W1) as [(s1 & A & B & C)|(L & b & A & B & C)].
      - left. exists s1. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; repeat split; auto; upd].
        assert (l0 = l) as -> by congruence. destruct (H1 v); auto. exists s0; auto.
      - right. exists L, b. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        right. exists s1. split; auto. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate).
        destruct (some_va G s) as [u Su]. destruct (H1 u); [exists s; auto|]. apply (v_split _ I L u P). exists s; auto. }
    constructor; [apply shape_clear; auto| |]; cbn; intros; apply Ke; eauto.
  - (* Unlink *) assert (forall v, shown x v -> shown (with_stat (with_item x s Empty false) (set (stat x) t Gone)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0, W0.
      assert (s0 <> s) by (intros ->; unfold set in W0; destruct (Nat.eq_dec s s); congruence).
      assert (what x s0 = Leaf l0) as W1 by upd. assert (stat x (tab G s0) = Live) as L1 by upd.
      destruct (Sh s0 l0 L1 S0 W1) as [(s1 & A & B & C)|(L & b & A & B & C)].
      - left. exists s1. cbn. repeat split; auto; upd.
      - right. exists L, b. split; [auto|]. split; [auto|]. destruct C as [|(s1 & C & D)]; auto.
        right. exists s1. split; auto. destruct (Nat.eq_dec s1 s) as [->|]; [|cbn; upd].
        assert (is_split (splits x L)) as P by (destruct A as [A|A]; rewrite A; discriminate). destruct (H3 L P C). }
    constructor; [apply shape_unlink; auto| |]; cbn; intros; apply Ke; eauto.
  - (* FlushHole *) constructor; [apply shape_hole; auto| |]; cbn; intros; eapply (shown_more x); eauto.
    eapply Kn; eauto. eapply f_less; eauto.
  - (* FlushTable *) assert (forall v, shown x v -> shown (with_stat (with_cache x c) (set (stat x) t Safe)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0. assert (stat x (tab G s0) = Live) as L1 by upd. exact (Sh s0 l0 L1 S0 W0). }
    constructor; [apply shape_flush_table; auto| |]; cbn; intros; apply Ke; eauto. eapply Kn; eauto. eapply f_less; eauto.
  - (* Free *) cbn in H. assert (stat x t = Fresh \/ stat x t = Safe) as F by (destruct H as [|[|[]]]; auto; discriminate).
    assert (forall v, shown x v -> shown (with_stat x (set (stat x) t Freed)) v) as Ke.
    { intros v Sh s0 l0 L0 S0 W0. cbn in L0. assert (stat x (tab G s0) = Live) as L1 by upd. exact (Sh s0 l0 L1 S0 W0). }
    constructor; [apply shape_free; auto| |]; cbn; intros; apply Ke; eauto.
  - (* HwStart *) constructor; [apply shape_held; auto; split; auto; apply v_root; auto| |]; cbn; intros.
    + destruct H0; [|discriminate]. eapply (shown_more x); eauto.
    + eapply (shown_more x); eauto.
  - (* HwDown *) destruct (v_walk _ I _ _ H) as [Lt _]. subst t.
    assert (stat x (tab G s) = Live) as Ls by (destruct Lt as [|Go]; auto; rewrite (v_gone _ I _ Go) in H2; discriminate).
    destruct (v_tab _ I _ _ Ls H2) as (Lt' & U & R).
    constructor; [apply shape_held; auto; split; auto| |]; cbn; intros.
    + destruct (down_serves G t' v R) as (s1 & A & B); [congruence|]. exists s1; auto.
    + destruct H0; [|discriminate]. eapply (shown_more x); eauto.
    + eapply (shown_more x); eauto.
  - (* HwFill *) destruct (v_walk _ I _ _ H) as [Lt _]. subst t.
    assert (stat x (tab G s) = Live) as Ls by (destruct Lt as [|Go]; auto; rewrite (v_gone _ I _ Go) in H2; discriminate).
    constructor; [apply shape_held; auto| |]; cbn; intros.
    + eapply (shown_more x); eauto. destruct H0 as [H0|H0]; [eauto|]. injection H0 as -> -> E.
      eapply (mark_shows x s); eauto.
    + eapply (shown_more x); eauto.
  - (* HwWrite *) constructor; [apply shape_wrote; auto| |]; cbn; intros.
    + eapply (shown_more x); eauto.
    + eapply (shown_more x); eauto. destruct H1 as [H1| ->]; eauto.
  - (* HwCompare *) destruct (v_trans _ I _ _ _ H) as (Hs & Ht & _).
    assert (stat x (tab G s) = Live) as Ls by (eapply live_or_gone_leaf; eauto).
    pose (y := with_dirty x s true).
    assert (forall u, shown y u -> shown (with_held (with_wrote y v) (Trans l s true)) u) as Same
      by (intros u; apply shown_more; auto).
    assert (forall u, cov G l u -> mapped x u -> shown y u) as New.
    { intros u C M. eapply (mark_shows y s l); auto; [apply shape_dirty; auto|cbn; upd]. }
    assert (forall u, shown x u -> shown y u) as Old by (intros u; apply shown_more; auto; cbn; intros; upd).
    constructor.
    + apply shape_held; [apply shape_wrote, shape_dirty; auto|]. cbn. eauto.
    + cbn. intros l0 s0 u [A|A] C M; apply Same; [apply Old; eauto|]. injection A as -> ->. auto.
    + cbn. intros u [A| ->] M; apply Same; auto.
  - (* HwBlind *) destruct (v_trans _ I _ _ _ H) as (Hs & Ht & _ & _ & K).
    pose (y := with_dirty x s true).
    assert (forall u, shown y u -> shown (with_held (with_wrote y v) (Trans l s true)) u) as Same
      by (intros u; apply shown_more; auto).
    assert (forall u, cov G l u -> mapped x u -> shown y u) as New.
    { intros u C M. destruct K as [K|[[b K]|K]].
      - assert (stat x (tab G s) = Live) as Ls by (eapply live_or_gone_leaf; eauto).
        eapply (mark_shows y s l); auto; [apply shape_dirty; auto|cbn; upd].
      - intros s0 l0 _ _ _. right. exists l, b. split; [auto|]. split; auto. right. exists s. split; auto. cbn. upd.
      - destruct (v_cleared _ I l u); auto. }
    assert (forall u, shown x u -> shown y u) as Old by (intros u; apply shown_more; auto; cbn; intros; upd).
    constructor.
    + apply shape_held; [apply shape_wrote, shape_dirty; auto|]. cbn. eauto.
    + cbn. intros l0 s0 u [A|A] C M; apply Same; [apply Old; eauto|]. injection A as -> ->. auto.
    + cbn. intros u [A| ->] M; apply Same; auto.
  - (* HwEvict *) constructor; [apply shape_cache; auto| |]; cbn; intros; eapply (shown_more x); eauto.
Qed.

Lemma start x : initial G x -> inv x.
Proof.
  intros [R U St It Sp Ca Wr Ho Cl]. constructor; [constructor| |]; unfold right; intros; auto.
  - pose proof (It s H) as A. rewrite H0 in A. auto.
  - destruct (St (tab G s)); congruence.
  - pose proof (It s H) as A. rewrite H0 in A. destruct A as (A & B & C).
    split; [auto|]. split; intros v Cv; [intros _|]; apply C; auto.
  - destruct H as [H|H]; [|destruct (St (tab G s)); congruence]. pose proof (It s H) as A. rewrite H0 in A. auto.
  - pose proof (It s H) as A. rewrite H0 in A. destruct A as (A & B & C). auto.
  - destruct H. auto.
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
   of a mapped address: it goes on to a table in use, or to a leaf that translates as promised. *)
Theorem walks_are_right v t s : cache x (Walk v t) -> mapped x v -> tab G s = t -> serves G s v ->
  match what x s with
  | Empty => False
  | Tab t' => stat x t' = Live /\ dom G t' v
  | Leaf l => cov G l v /\ tr G l v = spec G v
  end.
Proof.
  intros C M <- S. pose proof (v_shape _ (always _ _ begins reached)) as I. destruct (v_walk _ I _ _ C) as [H _].
  destruct (what x s) as [|l|t'] eqn:W.
  - eapply (v_empty _ I s); eauto.
  - assert (stat x (tab G s) = Live) as Ls by (eapply live_or_gone_leaf; eauto).
    destruct (v_leaf _ I _ _ Ls W) as (A & B & _). assert (cov G l v) by (exists s; auto). auto.
  - assert (stat x (tab G s) = Live) as Ls by (destruct H as [|Go]; auto; rewrite (v_gone _ I _ Go) in W; discriminate).
    destruct (v_tab _ I _ _ Ls W) as (A & B & R). split; auto.
    destruct (down_serves G t' v R) as (s1 & ? & ?); [congruence|]. exists s1; auto.
Qed.

(** A cached translation of any age translates every mapped address as promised. *)
Theorem caches_are_right l s d v : cache x (Trans l s d) -> cov G l v -> mapped x v -> tr G l v = spec G v.
Proof. intros C Cv M. apply (v_trans _ (v_shape _ (always _ _ begins reached)) l s d); auto. Qed.

(** No D is lost: once no split is under way, the leaf that serves an address that was written is dirty. *)
Theorem no_dirty_bit_is_lost v s l : wrote x v -> mapped x v -> (forall l', splits x l' = No) ->
  stat x (tab G s) = Live -> serves G s v -> what x s = Leaf l -> marked G x l.
Proof.
  intros W M N L S K. destruct (v_wrote _ (always _ _ begins reached) v W M s l L S K) as [|(l' & b & [E|E] & _)]; auto;
    rewrite N in E; discriminate.
Qed.

(** Nothing that hardware holds, or can read next, is in a table that was freed. *)
Theorem no_freed_table_is_reached :
  (forall v t, cache x (Walk v t) -> stat x t <> Freed) /\
  (forall l s d, cache x (Trans l s d) -> stat x (tab G s) <> Freed) /\
  (forall s t, hot G x s -> what x s = Tab t -> stat x t <> Freed).
Proof.
  pose proof (v_shape _ (always _ _ begins reached)) as I. repeat split.
  - intros v t C. destruct (v_walk _ I _ _ C) as [[-> | ->] _]; discriminate.
  - intros l s d C. destruct (v_trans _ I _ _ _ C) as (_ & [-> | ->] & _); discriminate.
  - intros s t [L|Go] W.
    + destruct (v_tab _ I _ _ L W) as (-> & _). discriminate.
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
    assert (stat x (tab G s) = Live) as Ls by (eapply live_or_gone_leaf; eauto).
    destruct (v_leaf _ I _ _ Ls W) as (A & _ & N). eapply N; eauto. exists s; auto.
Qed.
End Theorems.
End Proofs.

Print Assumptions walks_are_right.
Print Assumptions caches_are_right.
Print Assumptions no_dirty_bit_is_lost.
Print Assumptions no_freed_table_is_reached.
Print Assumptions nothing_leads_into_a_hole.
